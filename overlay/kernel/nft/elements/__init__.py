"""Elements of nftables sets that have expressions of their own: limits and counters."""
