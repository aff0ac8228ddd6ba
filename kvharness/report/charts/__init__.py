"""Charts, as figures and for the page."""
