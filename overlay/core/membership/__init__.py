"""Cluster membership and liveness: SWIM with Lifeguard."""
