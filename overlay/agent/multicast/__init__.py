"""This host's part in multicast: what it wants, and what the others want."""
