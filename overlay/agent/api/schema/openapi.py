"""The OpenAPI 3.1 document of the API, made from the routes as they are registered.

Owns: the form of the document (https://spec.openapis.org/oas/v3.1.1).
Does not: know what any handler does. Imported on demand: an agent rarely needs it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from overlay import __version__
from overlay.agent.api.http.operation import ApiOperation
from overlay.agent.api.schema.field_types import custom_schema
from overlay.errors import ERROR_BY_CODE, AgentNotRunningError, OverlayError, UsageError

Schema = dict[str, Any]

_JSON, _TEXT, _LINES = "application/json", "text/plain", "application/x-ndjson"
_CLIENT_ONLY = AgentNotRunningError.code  # made by the client: nothing answered
_WRONG_METHOD = 405
_REF = "#/components/schemas/{name}"


def document(operations: list[ApiOperation]) -> Schema:
    """Return the document."""
    schemas = _components(operations)
    paths: dict[str, Schema] = {}
    for each in sorted(operations, key=lambda each: each.path):
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "overlayd",
            "version": __version__,
            "description": "The agent's API on its UNIX socket. Meanings: docs/API.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://overlayd", "description": "/run/overlayd/api.sock"}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _error(), **_referenced(paths, schemas)},
            "responses": _failures({kind for each in operations for kind in each.errors()}),
        },
    }


def _components(operations: list[ApiOperation]) -> dict[str, Schema]:
    """Return the schemas of all structs and TypedDicts, by name."""
    requests = {each.request for each in operations if each.request is not None}
    shapes = {
        shape
        for each in operations
        for shape in (each.request, each.query, each.response, each.stream)
        if shape is not None and shape not in (str, dict)
    }
    _, components = msgspec.json.schema_components(
        sorted(shapes, key=lambda shape: str(shape.__name__)),
        schema_hook=custom_schema,
        ref_template=_REF,
    )
    schemas: dict[str, Schema] = msgspec.json.decode(msgspec.json.encode(components))  # () as []
    for shape in requests:
        schemas[shape.__name__] = _nullable(schemas[shape.__name__])
    return schemas


def _nullable(schema: Schema) -> Schema:
    """Return a request's schema in which each optional field may be null, which is its default."""
    properties = {}
    for name, each in schema["properties"].items():
        found = dict(each)
        if name not in schema["required"] and {"type": "null"} not in each.get("anyOf", ()):
            default = {"default": found.pop("default")}
            found = {"anyOf": [found, {"type": "null"}], **default}
        properties[name] = found
    return {**schema, "properties": properties}


def _referenced(paths: Schema, schemas: dict[str, Schema]) -> dict[str, Schema]:
    """Return the schemas that paths refer to, directly or through others."""
    found: dict[str, Schema] = {}
    waiting = [paths]
    while waiting:
        text = msgspec.json.encode(waiting.pop()).decode()
        for name, schema in schemas.items():
            if name not in found and f'"{_REF.format(name=name)}"' in text:
                found[name] = schema
                waiting.append(schema)
    return dict(sorted(found.items()))


def _operation(each: ApiOperation, schemas: dict[str, Schema]) -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True,
         "schema": {"type": "string", "minLength": 1}}
        for name in each.path_names()
    ]  # fmt: skip
    if each.query is not None:
        query = schemas[each.query.__name__]
        parameters += [
            {"name": name, "in": "query", "required": name in query["required"],
             "schema": _without_null(schema)}
            for name, schema in query["properties"].items()
        ]  # fmt: skip
    statuses = {_WRONG_METHOD, *(kind.http_status for kind in each.errors())}
    failures = {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)
    }
    described: Schema = {
        "operationId": each.name,
        "summary": f"overlayd {each.name}",
        "description": "For root only." if each.root else "For root and the group.",
        "responses": {"200": _response(each, schemas), **failures},
    }
    if parameters:
        described["parameters"] = parameters
    if each.request is not None:
        name = each.request.__name__
        described["requestBody"] = {
            "required": bool(schemas[name]["required"]),
            "content": {_JSON: {"schema": {"$ref": _REF.format(name=name)}}},
        }
    return described


def _without_null(schema: Schema) -> Schema:
    """Return the schema of a query parameter, which is never null: it is left out instead."""
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else schema


def _response(each: ApiOperation, schemas: dict[str, Schema]) -> Schema:
    if each.response is str:
        return {"description": "Text.", "content": {_TEXT: {"schema": {"type": "string"}}}}
    if each.response is dict:
        return {"description": "An object.", "content": {_JSON: {"schema": {"type": "object"}}}}
    fields = dict(schemas[each.response.__name__])
    description = fields.pop("description")
    fields.pop("title", None)
    fields["properties"] = {
        "schema": {"const": f"overlayd.{each.name}/v1"},
        **fields["properties"],
    }
    fields["required"] = ["schema", *fields["required"]]
    content: Schema = {_JSON: {"schema": fields}}
    if each.stream is not None:
        content[_LINES] = {"schema": {"$ref": _REF.format(name=each.stream.__name__)}}
    return {"description": description, "content": content}


def _error() -> Schema:
    texts = {name: {"type": "string"} for name in ("what", "why", "hint", "field")}
    codes = [code for code in ERROR_BY_CODE if code != _CLIENT_ONLY]
    error = {
        "type": "object",
        "properties": {"code": {"enum": codes}, **texts},
        "required": ["code", *texts],
    }
    properties = {"schema": {"const": "overlayd.error/v1"}, "error": error}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _failures(kinds: set[type[OverlayError]]) -> dict[str, Schema]:
    """Return the error responses by status."""
    by_status: dict[int, list[str]] = {_WRONG_METHOD: [UsageError.code]}
    for kind in kinds:
        by_status.setdefault(kind.http_status, []).append(kind.code)
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(sorted(codes))}",
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, codes in sorted(by_status.items())
    }
