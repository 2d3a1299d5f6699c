"""Passwords, sessions, tokens and the lock-out. Nothing here knows HTTP."""
