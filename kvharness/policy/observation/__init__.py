"""What may be seen of a context beyond its keys and values; anyone can add to it."""
