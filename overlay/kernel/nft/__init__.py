"""nftables by netlink: tables, chains, sets and rules as values, and the tables that are ours."""
