"""Bare containers: named network namespaces."""
