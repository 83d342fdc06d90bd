"""What the agent contributes to `overlayd netcheck`: its members, and its containers' counters."""
