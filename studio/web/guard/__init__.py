"""What every request passes first: host, origin, size, and who asks."""
