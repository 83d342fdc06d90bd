"""One simulated host: the agent's shell without sockets."""
