"""Services: creating and changing them, and checking backends on this host."""
