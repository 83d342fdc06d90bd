"""Sockets that see reports about multicast groups, and ask for them."""
