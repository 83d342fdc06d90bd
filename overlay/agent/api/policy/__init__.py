"""Policies: their requests, responses and handlers."""
