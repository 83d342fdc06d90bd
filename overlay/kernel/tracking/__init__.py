"""Connection tracking of the host: who needs it, and what is exempt."""
