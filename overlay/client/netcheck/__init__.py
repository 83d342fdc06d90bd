"""Collect the facts of `overlayd netcheck`: from the agent, this host, and other addresses."""
