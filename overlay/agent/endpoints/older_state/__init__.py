"""What a start with an older state file brings back of this node's containers."""
