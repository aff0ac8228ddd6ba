"""From the name of a policy to a policy."""
