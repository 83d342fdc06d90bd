"""What simulated hosts run in: time, randomness, the network, codec and notary."""
