"""`make bench`: compare overlayd with the underlay, a hand-made VXLAN and Docker swarm."""
