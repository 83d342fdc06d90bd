"""The wire: codec, identities, sealed sessions, the join handshake."""
