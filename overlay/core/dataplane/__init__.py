"""Desired state of sandboxes and hosts as values: planner, diff, policies."""
