"""Names: resolver, servers, custom records."""
