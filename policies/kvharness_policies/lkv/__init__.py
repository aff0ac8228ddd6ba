"""LKV: learned budgets of heads and learned scores of tokens."""
