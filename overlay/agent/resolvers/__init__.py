"""The resolvers that this host and its containers were given."""
