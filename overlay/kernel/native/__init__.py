"""The native path: programs on the underlay's interfaces, and their maps."""
