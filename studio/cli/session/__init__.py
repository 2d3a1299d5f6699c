"""What every command shares: its home, its output, its waiting."""
