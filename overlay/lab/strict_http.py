"""The API's document taken strictly, as tests hold the agent to it.

A client must ignore fields that it does not know; an agent of this version has none to ignore.
"""

from __future__ import annotations

from typing import Any


def closed_schema(schema: Any) -> Any:
    """Return a schema whose objects have no fields but those it names."""
    if isinstance(schema, list):
        return [closed_schema(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed_schema(value) for key, value in schema.items()}
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made
