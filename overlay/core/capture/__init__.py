"""Captured frames: which ones are wanted, what is in them, and the file they are written to."""
