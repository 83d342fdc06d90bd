"""Networks that reach beyond the cluster by BGP EVPN, which FRR speaks."""
