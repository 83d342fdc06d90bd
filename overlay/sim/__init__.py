"""A deterministic simulator: the real core on simulated hosts."""
