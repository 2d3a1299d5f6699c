"""Work on a home as a whole: seed, backup, retention, rebase."""
