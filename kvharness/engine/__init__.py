"""One item: read once, evicted, answered and scored."""
