"""overlayd's files in the state directory and the run directory, and what else may be there."""
