"""HTTP as the API speaks it: the socket, its connections, who may call what."""
