"""GET /metrics: what this host measures."""
