"""Authenticated sessions between nodes: handshake, sealing, replay, limits."""
