"""The links between the sandboxes of networks that a router connects."""
