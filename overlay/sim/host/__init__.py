"""One simulated host: its agent, without sockets, and its kernel and disk."""
