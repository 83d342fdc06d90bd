"""The rules of port security."""
