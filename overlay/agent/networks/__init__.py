"""Network definitions, subnets, and this node's participation."""
