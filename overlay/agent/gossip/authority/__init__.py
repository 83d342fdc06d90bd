"""The cluster's authority: who holds it, how others come to hold it, and what it certifies."""
