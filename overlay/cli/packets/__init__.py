"""Real packets that the command line sends, in the namespace of a container."""
