"""Replication: broadcast, anti-entropy, initial sync, confirmations."""
