"""The labeling screen as HTML. Nothing here can mention a policy."""
