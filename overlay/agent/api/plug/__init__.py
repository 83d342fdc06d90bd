"""Plugs: their requests, responses and handlers."""
