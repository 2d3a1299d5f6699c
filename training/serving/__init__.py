"""A policy in a process of its own that replies while somebody watches."""
