"""The pure core: records, membership, replication, addresses, plan and diff.

Nothing here reads a clock, opens a socket or rolls dice of its own: time, chance and
input come as arguments, so that the simulator runs the very same code.
"""
