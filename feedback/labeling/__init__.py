"""Who judges what next, and what becomes of an answer."""
