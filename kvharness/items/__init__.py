"""Generators of items: seeded, so that answers cannot be known without the context."""
