"""Multicast between hosts: who wants which groups, and where frames for them go."""
