"""nftables over netlink: tables as values, and overlayd's own tables."""
