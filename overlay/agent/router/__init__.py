"""Routers between networks: creating and changing them, and which sandboxes they need here."""
