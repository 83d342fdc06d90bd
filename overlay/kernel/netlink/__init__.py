"""Netlink: socket, message bytes, requests and decoders for links, neighbors and routes."""
