"""The state that an agent keeps on disk."""
