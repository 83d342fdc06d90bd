"""Captures of containers' traffic: where to capture here, and the far ends on other hosts."""
