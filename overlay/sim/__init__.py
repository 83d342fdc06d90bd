"""A deterministic simulator: the real core over a fake kernel and a lossy network."""
