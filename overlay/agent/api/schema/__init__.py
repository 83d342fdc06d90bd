"""The requests and responses by resource, and the OpenAPI document."""
