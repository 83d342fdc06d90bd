"""The rules of cluster-key rotation."""
