"""`make bench`: overlayd beside the bare underlay, a hand-made VXLAN and Docker's swarm overlay."""
