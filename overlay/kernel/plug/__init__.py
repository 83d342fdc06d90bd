"""A physical interface as a port of a network: its port, its guard and its probes."""
