"""SIP: a learned scorer of cached tokens, its training and its analyses."""
