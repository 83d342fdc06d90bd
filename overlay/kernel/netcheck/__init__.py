"""Facts for `overlayd netcheck` that the kernel of this host has, and packets to an address."""
