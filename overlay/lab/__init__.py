"""A lab of several hosts on one machine, connected by a bridge."""
