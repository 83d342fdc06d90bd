"""Asking for addresses, granting them, reclaiming them."""
