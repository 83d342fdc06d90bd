"""One network's namespace: read it, change it, watch it."""
