"""Handlers that explain the way between two containers."""
