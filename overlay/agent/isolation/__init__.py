"""Keeping containers of one network apart, and the members that do not."""
