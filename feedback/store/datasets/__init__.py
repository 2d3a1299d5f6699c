"""Frozen datasets and the rows that exports read."""
