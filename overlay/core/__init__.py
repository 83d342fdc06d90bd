"""The pure core: records, membership, replication, addresses, planning.

Nothing here reads a clock, opens a socket or draws random numbers by itself: time, randomness and
input are arguments, so the simulator runs the same code as the agent.
"""
