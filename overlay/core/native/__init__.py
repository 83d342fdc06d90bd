"""The native data path as values: what the underlay's programs know, and what they should."""
