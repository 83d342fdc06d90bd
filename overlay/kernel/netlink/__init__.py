"""Netlink: socket, message encoding, and requests and decoders for links, neighbors, routes."""
