"""The segment's own controls: what crosses no port, how much of a kind may, and what goes first."""
