"""What a policy implements, and what it sees."""
