"""From judged examples to token rows, and how processes share them."""
