"""The environment of simulated hosts: time, randomness, network."""
