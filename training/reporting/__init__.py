"""What a run reports, where it is written, and who mirrors it."""
