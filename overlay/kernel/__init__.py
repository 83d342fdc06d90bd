"""Reads kernel state and applies operations to it; the only package that imports pyroute2."""
