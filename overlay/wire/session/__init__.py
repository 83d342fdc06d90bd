"""Authenticated sessions between nodes: handshake, sealing, limits."""
