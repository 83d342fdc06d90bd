"""Networks that reach beyond the cluster by BGP EVPN: this host's shadow, and what FRR tells."""
