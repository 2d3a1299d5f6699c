"""Exact shortcuts that can be removed: results stay, speed goes."""
