"""The simulated cluster, what people do with it, and what goes wrong."""
