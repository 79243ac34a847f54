"""`cclight tune`: search settings."""
