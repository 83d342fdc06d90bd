"""A strict form of the API's schema, for tests of the agent.

Clients must ignore unknown fields, but this version's agent must not send any.
"""

from __future__ import annotations

from typing import Any


def closed_schema(schema: Any) -> Any:
    """Return a JSON schema that allows no unnamed properties."""
    if isinstance(schema, list):
        return [closed_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed_schema(value) for key, value in schema.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made
