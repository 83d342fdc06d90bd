"""Endpoints that programs started by container runtimes ask for."""
