"""Plugins of container runtimes: each serves one protocol, and the attach service does the work."""
