"""Docker's network driver and IPAM driver."""
