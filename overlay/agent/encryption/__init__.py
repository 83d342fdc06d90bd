"""Encrypted networks: this node's WireGuard key, and the tunnels to the other members."""
