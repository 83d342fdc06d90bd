"""Bytes of messages, records and datagram headers; strict validation."""
