"""Handlers for the plugins of container runtimes."""
