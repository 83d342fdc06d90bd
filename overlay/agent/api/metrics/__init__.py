"""GET /metrics and GET /v1/traffic: what this host measures."""
