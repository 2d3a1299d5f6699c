"""Judgments that come from elsewhere or leave: archives and imports."""
