"""The API of BGP EVPN: its requests, responses and handlers."""
