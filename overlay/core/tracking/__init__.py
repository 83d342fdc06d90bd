"""Connection tracking of the host: what must be tracked."""
