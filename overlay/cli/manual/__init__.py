"""The manual pages overlayd(8) and overlayd.toml(5)."""
