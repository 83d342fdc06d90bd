"""`overlayd capture`: frames of this host and of the far end, merged, shown or written."""
