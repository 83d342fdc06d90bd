"""Packet sockets: the frames of one interface, filtered by the kernel."""
