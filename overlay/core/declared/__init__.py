"""Declared objects: records that any member may create, change and remove."""
