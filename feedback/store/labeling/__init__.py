"""Pool, leases, matchups, judgments, drafts, batches, reviews and the settings of labeling."""
