"""First-party eviction policies; they use nothing of kvharness but its public names."""
