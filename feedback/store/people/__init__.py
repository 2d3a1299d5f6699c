"""Users, credentials and the audit log."""
