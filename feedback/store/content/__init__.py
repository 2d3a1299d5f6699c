"""Prompts and the replies to them."""
