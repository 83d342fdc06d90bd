"""The namespace in which FRR sees this host's EVPN networks, and FRR's processes."""
