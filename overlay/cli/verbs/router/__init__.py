"""Commands on routers between networks."""
