"""Containers' own network namespaces: what changes in them, and the interfaces of an attach."""
