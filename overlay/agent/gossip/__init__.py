"""This node among its peers: transport, durable writes, keys, admission, authority, joining."""
