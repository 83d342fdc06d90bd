"""A lab of several hosts on one machine, as namespaces connected by a bridge."""
