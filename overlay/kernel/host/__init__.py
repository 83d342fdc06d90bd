"""The host's own namespace: underlay, uplinks, forwarding, macvlan parents, conntrack."""
