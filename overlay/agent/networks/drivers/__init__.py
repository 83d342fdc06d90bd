"""Network drivers: how each kind of network gives a container its interface."""
