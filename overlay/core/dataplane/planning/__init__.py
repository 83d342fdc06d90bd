"""The desired state of a sandbox, from records."""
