"""Keeping sandboxes, the MTU and the underlay filter as they should be."""
