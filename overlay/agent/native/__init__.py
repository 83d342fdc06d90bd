"""The native data path: the programs on the underlay's interfaces follow the records."""
