"""Thin clients of the agent's API for container runtimes."""
