"""The objects of a declared state that belong to one host: exposures, ports and plugs."""
