"""From judgments to frozen datasets, and from datasets to the rows a method learns from."""
