"""The rules by which the cluster key is rotated."""
