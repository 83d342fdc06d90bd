"""Encoding of messages, records and datagram headers; strict validation."""
