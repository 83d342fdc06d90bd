"""Declared objects of the cluster: writing them, and deleting records left over."""
