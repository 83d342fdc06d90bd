"""The checks of `overlayd doctor`: each a function from evidence to findings."""
