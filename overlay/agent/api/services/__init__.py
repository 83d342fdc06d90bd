"""Services over the API."""
