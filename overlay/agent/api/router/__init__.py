"""The resource of routers between networks."""
