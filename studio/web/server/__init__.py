"""What a request may cost, how it is refused, and how the server starts and ends."""
