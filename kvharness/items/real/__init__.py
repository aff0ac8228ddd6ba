"""Items of real data sets."""
