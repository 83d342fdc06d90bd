"""Logs of signed segments: writing this node's own, storing all of them."""
