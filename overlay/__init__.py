"""overlayd: an L2 network for containers on many hosts, without a manager."""

__version__ = "0.4.0"
