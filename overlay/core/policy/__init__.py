"""Policies: which connections between the endpoints of a network are allowed."""
