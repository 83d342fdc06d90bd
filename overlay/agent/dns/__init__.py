"""DNS for containers: resolver, servers and custom records."""
