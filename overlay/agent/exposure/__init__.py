"""The host on its networks: host endpoints, forwarding, published ports."""
