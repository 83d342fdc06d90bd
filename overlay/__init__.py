"""overlayd: one L2 network for containers on many hosts, without a manager node."""

__version__ = "0.1.0"
