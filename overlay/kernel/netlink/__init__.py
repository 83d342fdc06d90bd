"""Netlink: socket, encoding, requests and decoders (netlink(7))."""
