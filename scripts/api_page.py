"""The site's reference of the API, made from the OpenAPI document that the agent serves.

docs/API.md explains what the fields mean; this page has every field with its type and bounds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from overlay.agent.api import routes
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import openapi

Schema = dict[str, Any]

INTRODUCTION = """# API: every field

Made from the OpenAPI 3.1 document that each agent serves at `GET /v1/openapi.json`
([the file](openapi.json)). [The agent's API](../API.md) explains the meaning, with an example of
each answer, and how to connect.

```
curl -s --unix-socket /run/overlayd/api.sock http://overlayd/v1/status
```
"""
ROWS = ("| field | type | if it is left out |", "|---|---|---|")


def document() -> Schema:
    """Return the document that an agent of this version serves."""
    server = ApiServer(Path("/run/overlayd"), "overlayd")
    routes.register(server, cast("Any", None))  # handlers are registered, and never called
    return openapi.document(server.operations)


def document_text() -> str:
    """Return the document as the text of a file."""
    return json.dumps(document(), indent=1, ensure_ascii=False)


def api_page() -> str:
    """Return a section for each operation, and one for each shape that several share."""
    described = document()
    lines = [INTRODUCTION]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            lines += [f"## {method.upper()} {path}", "", *_operation(operation, described), ""]
    lines += ["# Shapes", ""]
    for name, shape in described["components"]["schemas"].items():
        lines += [f"## {name}", "", *_about(shape), *_fields(shape), ""]
    return "\n".join(lines)


def _operation(operation: Schema, described: Schema) -> Iterator[str]:
    yield f"{operation['description']} Its name is `{operation['operationId']}`."
    parameters = operation.get("parameters", [])
    if parameters:
        yield from ("", "Parameters:", "", *ROWS)
        for each in parameters:
            yield _row(each["name"], each["schema"], is_required=each["required"])
    if "requestBody" in operation:
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        shape = described["components"]["schemas"][reference.rsplit("/", 1)[1]]
        fields = list(_fields(shape))
        yield from ("", "Body:", "", *fields) if fields else ("", "Body: an empty object.")
    answer = operation["responses"]["200"]
    yield from ("", f"Answer: {answer['description']}", "")
    for kind, content in answer["content"].items():
        if kind == "application/json":
            yield from _fields(content["schema"])
        else:
            yield f"As `{kind}`: {_type(content['schema'])}."
    codes = [status for status in operation["responses"] if status != "200"]
    yield from ("", f"Errors: {', '.join(codes)}, each an [Error](#error).")


def _about(shape: Schema) -> Iterator[str]:
    if shape.get("description"):
        yield from (shape["description"], "")


def _fields(shape: Schema) -> Iterator[str]:
    """Yield the table of an object's fields; nothing for one without any."""
    required, fields = shape.get("required", []), shape.get("properties", {})
    if fields and set(fields) <= set(required):
        yield from ("| field | type |", "|---|---|")
        for name, each in fields.items():
            yield f"| `{name}` | {_type(each)} |"
    elif fields:
        yield from ROWS
        for name, each in fields.items():
            yield _row(name, each, is_required=name in required)


def _row(name: str, schema: Schema, *, is_required: bool) -> str:
    default = f"`{json.dumps(schema['default'])}`" if "default" in schema else "absent"
    shown = "required" if is_required else default
    return f"| `{name}` | {_type(schema)} | {shown} |"


def _type(schema: Schema) -> str:
    """Return a schema as a cell of a table."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(each)}`" for each in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        items = _type(schema["items"]) if schema.get("items") else "anything"
        return f"list of {items}{_bounds(schema)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    if isinstance(kind, list):
        return " or ".join(kind)
    return f"{kind or 'anything'}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    words = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "maxItems": "at most {}",
    }
    found = [text.format(schema[key]) for key, text in words.items() if key in schema]
    return f" ({', '.join(found)})" if found else ""
