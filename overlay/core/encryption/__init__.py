"""Encrypted networks: the nodes' WireGuard keys, addresses and peers as values."""
