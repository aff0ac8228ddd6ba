"""A model that runs and is observed, and its caches."""
