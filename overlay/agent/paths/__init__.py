"""The data path to each peer: probes, verdicts, sizes."""
