"""The routes in containers: the default route, and those to a network's further subnets."""
