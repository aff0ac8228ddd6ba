"""What the code of a policy may not do, and whose fault a fault is."""
