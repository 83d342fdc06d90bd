"""Lookups by name over the replicated records."""
