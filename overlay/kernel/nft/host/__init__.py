"""The tables of a host that has networks of its own: what passes it, and what is translated."""
