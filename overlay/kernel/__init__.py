"""Reads kernel state and applies operations to it.

The only package that imports pyroute2.
"""
