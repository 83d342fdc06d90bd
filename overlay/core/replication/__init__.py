"""Records from node to node: broadcast, anti-entropy, initial sync, confirmations."""
