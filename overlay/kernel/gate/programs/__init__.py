"""The gate's programs on the host's interfaces, and on both ends of each pair into it."""
