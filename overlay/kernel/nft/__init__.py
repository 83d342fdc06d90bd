"""nftables over netlink: tables, chains, sets and rules as values, and overlayd's own tables."""
