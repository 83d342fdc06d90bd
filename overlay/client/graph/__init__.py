"""A cluster as hosts, containers and paths: what every picture of it shows."""
