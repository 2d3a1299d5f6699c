"""What scores a reply: reward models, functions, oracles."""
