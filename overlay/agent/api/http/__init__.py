"""HTTP: the socket, its connections, and who may call."""
