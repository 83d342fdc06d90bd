"""Plugs: a host's physical interface as a port of a network, and which of several is active."""
