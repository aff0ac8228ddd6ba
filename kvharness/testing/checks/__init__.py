"""The checks, split by what they look at; `kvharness.testing` has all their names."""
