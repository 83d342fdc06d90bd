"""The segment's own controls of what a port sends, beside port security."""
