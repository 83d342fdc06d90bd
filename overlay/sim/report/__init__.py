"""Measurements on simulated clusters."""
