"""Bytes on the wire: codec, sealed envelope, handshake, replay window, token."""
