"""Policies of the cluster as this host reads, writes and explains them."""
