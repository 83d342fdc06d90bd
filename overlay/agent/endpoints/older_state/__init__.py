"""Recovery of this node's containers after a start with an older state file."""
