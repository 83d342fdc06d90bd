"""Commands about the keys of the cluster, and of the tunnels between its hosts."""
