"""What nodes say to each other, what they may write, and the protocol's settings."""
