"""The environment of simulated hosts: time, randomness, network, codec and notary."""
