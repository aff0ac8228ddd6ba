"""Claims: what is said of two policies, judged from records; imports no torch."""
