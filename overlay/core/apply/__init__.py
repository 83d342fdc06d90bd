"""The declared state of a cluster: its file, and the difference to what is present."""
