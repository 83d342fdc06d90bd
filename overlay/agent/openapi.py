"""The API's description, an OpenAPI 3.1 document, made from the routes as they are registered.

Owns: what a route declares, and the document's form (https://spec.openapis.org/oas/v3.1.1).
Must not know: what any verb does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, is_typeddict

from overlay import __version__
from overlay.agent import request, shape
from overlay.agent.shape import Schema
from overlay.agent.web import web
from overlay.errors import ERROR_BY_CODE, AgentNotRunningError

Verb = Callable[[web.Request, dict[str, Any]], Awaitable[Any]]

_JSON, _TEXT, _LINES = "application/json", "text/plain", "application/x-ndjson"
_NOT_OURS = AgentNotRunningError.code  # made by the client: nobody answered
_WRONG_METHOD = 405


@dataclass(frozen=True, slots=True)
class Operation:
    """One route: its verb, and what it takes and gives, as shapes (overlay.agent.shape).

    `takes`: the body's fields; `asks`: the query's parameters; `gives`: the answer's fields, or
    `str` for plain text; `streams`: each line of an answer that goes on.
    """

    method: str
    path: str
    name: str
    verb: Verb
    root: bool = False
    takes: Any = None
    asks: Any = None
    gives: Any = None
    streams: Any = None

    def refuse_unknown(self, body: dict[str, Any], query: dict[str, str]) -> None:
        """Raise UsageError for a field or a parameter that is not declared."""
        if self.takes is not None:
            request.allow(body, *shape.fields_of(self.takes))
        if self.asks is not None:
            request.allow(query, *shape.fields_of(self.asks))


def document(operations: list[Operation]) -> Schema:
    """Return the document."""
    schemas: dict[str, Schema] = {"Error": _error()}
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
        "components": {"schemas": dict(sorted(schemas.items())), "responses": _failures()},
    }


def _operation(each: Operation, schemas: dict[str, Schema]) -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True,
         "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", each.path)
    ]  # fmt: skip
    if each.asks is not None:
        asked = shape.object_of(each.asks, schemas)
        parameters += [
            {"name": name, "in": "query", "required": name in asked["required"], "schema": schema}
            for name, schema in asked["properties"].items()
        ]
    failures = {code: {"$ref": f"#/components/responses/{code}"} for code in _failures()}
    described: Schema = {
        "operationId": each.name,
        "summary": f"overlayd {each.name}",
        "description": "For root alone." if each.root else "For root and the group.",
        "responses": {"200": _answer(each, schemas), **failures},
    }
    if parameters:
        described["parameters"] = parameters
    if each.takes is not None:
        body = shape.schema_of(each.takes, schemas, asked=True)
        described["requestBody"] = {
            "required": bool(shape.required_of(each.takes)),
            "content": {_JSON: {"schema": body}},
        }
    return described


def _answer(each: Operation, schemas: dict[str, Schema]) -> Schema:
    if each.gives is str:
        return {"description": "Text.", "content": {_TEXT: {"schema": {"type": "string"}}}}
    if not is_typeddict(each.gives):
        return {"description": "An object.", "content": {_JSON: {"schema": {"type": "object"}}}}
    fields = shape.object_of(each.gives, schemas)
    told = fields.pop("description")
    fields["properties"] = {
        "schema": {"const": f"overlayd.{each.name}/v1"},
        **fields["properties"],
    }
    fields["required"] = ["schema", *fields["required"]]
    content: Schema = {_JSON: {"schema": fields}}
    if each.streams is not None:
        content[_LINES] = {"schema": shape.schema_of(each.streams, schemas)}
    return {"description": told, "content": content}


def _error() -> Schema:
    texts = {name: {"type": "string"} for name in ("what", "why", "hint", "field")}
    codes = [code for code in ERROR_BY_CODE if code != _NOT_OURS]
    error = {
        "type": "object",
        "properties": {"code": {"enum": codes}, **texts},
        "required": ["code", *texts],
    }
    return {"type": "object", "properties": {"error": error}, "required": ["error"]}


def _failures() -> dict[str, Schema]:
    """Return the answers that any request may get in place of its own, by status."""
    by_status: dict[int, list[str]] = {_WRONG_METHOD: ["usage"]}
    for code, kind in ERROR_BY_CODE.items():
        if code != _NOT_OURS:
            by_status.setdefault(kind.http_status, []).append(code)
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, codes in sorted(by_status.items())
    }
