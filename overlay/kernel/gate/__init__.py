"""The gate: the namespace that translates, and the programs that lead packets there and back."""
