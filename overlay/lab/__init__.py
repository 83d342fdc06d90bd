"""Several hosts on one machine, as network namespaces joined by a bridge."""
