"""What every format is made of: its description, its reader, its pairs."""
