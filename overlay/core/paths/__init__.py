"""Probes of the data path: what was sent, what arrived, what that means."""
