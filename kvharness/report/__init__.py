"""Reports of a store: an HTML page, figures for papers, a summary for CI; imports no torch."""
