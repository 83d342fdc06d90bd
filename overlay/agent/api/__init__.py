"""The local HTTP API: handlers by resource."""
