"""Commands about fabrics that networks of the cluster reach into."""
