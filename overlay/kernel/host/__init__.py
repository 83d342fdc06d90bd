"""The host's network namespace: underlay, uplinks, forwarding, macvlan."""
