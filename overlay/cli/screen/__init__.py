"""The terminal: its size, colours and keys, and what is redrawn on it."""
