"""Intervals, verdicts, multiple testing and power, on plain arrays; imports no torch."""
