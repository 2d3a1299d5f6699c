"""What a run may be told: one settings class per method."""
