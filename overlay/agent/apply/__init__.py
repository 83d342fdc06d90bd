"""Declared state: what is present, as a plan compares it, and carrying out a plan's steps."""
