"""The simulated cluster, the load on it, and the faults."""
