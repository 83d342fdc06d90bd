"""What the controls of this host's ports drop: counting and reporting it."""
