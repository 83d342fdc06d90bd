"""Handlers that find out what is wrong between hosts and containers."""
