"""The words and the grammar that the starter corpus is made of."""
