"""The gate: where packets of exposed networks are translated, apart from the host's own traffic."""
