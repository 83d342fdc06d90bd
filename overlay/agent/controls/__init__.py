"""The frames that controls of this host's ports drop: counted and reported."""
