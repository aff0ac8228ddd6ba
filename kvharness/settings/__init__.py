"""What can be set, each by one entry of a table."""
