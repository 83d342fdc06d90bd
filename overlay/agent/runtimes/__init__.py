"""Docker, Podman, and what the user calls a container."""
