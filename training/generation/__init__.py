"""Replies: sampling from local models and from endpoints."""
