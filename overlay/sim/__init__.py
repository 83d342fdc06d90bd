"""A deterministic simulator: the real core over a simulated kernel and a lossy network."""
