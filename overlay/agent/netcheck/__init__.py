"""The agent's part of `overlayd netcheck`: its members, and its containers' counters."""
