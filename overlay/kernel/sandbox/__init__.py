"""One network's namespace: read, changed, watched."""
