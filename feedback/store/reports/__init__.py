"""Read-only questions over many tables: evidence, opinions, comparisons, lineage."""
