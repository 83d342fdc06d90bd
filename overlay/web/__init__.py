"""The page of `overlayd web`: a process of its own, a client of the agent's API."""
