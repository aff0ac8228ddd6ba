"""What a trained SIP knows, what there is to know, and why that need not help."""
