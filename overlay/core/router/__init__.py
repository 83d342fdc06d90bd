"""Routers between networks: what they are, and which networks they connect."""
