"""Handlers for declared state: applying a file, and writing one."""
