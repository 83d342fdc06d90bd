"""Attach, detach, update, repair and restart of containers' endpoints."""
