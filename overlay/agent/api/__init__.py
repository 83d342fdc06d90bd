"""The HTTP API on the UNIX socket: handlers by resource."""
