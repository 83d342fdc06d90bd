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
from overlay.agent.api.schema import fields as request
from overlay.agent.api.schema import json_schema
from overlay.agent.api.schema.json_schema import Schema
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import (
    ERROR_BY_CODE,
    AgentNotRunningError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    OverlayError,
    UsageError,
)

Verb = Callable[[web.Request, dict[str, Any]], Awaitable[Any]]

_JSON, _TEXT, _LINES = "application/json", "text/plain", "application/x-ndjson"
_NOT_OURS = AgentNotRunningError.code  # made by the client: nobody answered
_WRONG_METHOD = 405
_NAMING = frozenset({"network", "networks", "node", "parent", "target"})  # of what may not be there
_ANYWHERE: frozenset[type[OverlayError]] = frozenset({OverlayError, UsageError, ForbiddenError})


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """One route: its verb, and what it takes and gives, as shapes (`json_schema`).

    `takes`: the body's fields; `asks`: the query's parameters; `gives`: the answer's fields, or
    `str` for plain text; `streams`: each line of an answer that goes on; `unjoined`: also answered
    where this host is in no cluster; `fails`: errors that do not follow from the rest.
    """

    method: str
    path: str
    name: str
    verb: Verb
    root: bool = False
    request: Any = None
    query: Any = None
    response: Any = None
    is_stream: Any = None
    works_unjoined: bool = False
    errors_raised: tuple[type[OverlayError], ...] = ()

    def refuse_unknown(self, body: dict[str, Any], query: dict[str, str]) -> None:
        """Raise UsageError for a field or a parameter that is not declared."""
        request.refuse_unknown_fields(body, *_fields(self.request))
        request.refuse_unknown_fields(query, *_fields(self.query))

    def errors(self) -> frozenset[type[OverlayError]]:
        """Return what it may answer in place of what it gives.

        Where there must be a cluster there may be none, and what is named may not be there.
        """
        found = {*_ANYWHERE, *self.errors_raised}
        if not self.works_unjoined:
            found.add(ConflictError)
        if self.named_in_path() or _NAMING & {*_fields(self.request), *_fields(self.query)}:
            found.add(NotFoundError)
        return frozenset(found)

    def named_in_path(self) -> list[str]:
        """Return the names of the path's variable parts."""
        return re.findall(r"{(\w+)}", self.path)


def _fields(declared: Any) -> tuple[str, ...]:
    return () if declared is None else json_schema.field_names(declared)


def document(operations: list[ApiOperation]) -> Schema:
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
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": _failures({kind for each in operations for kind in each.errors()}),
        },
    }


def _operation(each: ApiOperation, schemas: dict[str, Schema]) -> Schema:
    parameters = [
        {"name": name, "in": "path", "required": True,
         "schema": {"type": "string", "minLength": 1}}
        for name in each.named_in_path()
    ]  # fmt: skip
    if each.query is not None:
        asked = json_schema.object_schema(each.query, schemas)
        parameters += [
            {"name": name, "in": "query", "required": name in asked["required"], "schema": schema}
            for name, schema in asked["properties"].items()
        ]
    statuses = {_WRONG_METHOD, *(kind.http_status for kind in each.errors())}
    failures = {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)
    }
    described: Schema = {
        "operationId": each.name,
        "summary": f"overlayd {each.name}",
        "description": "For root alone." if each.root else "For root and the group.",
        "responses": {"200": _answer(each, schemas), **failures},
    }
    if parameters:
        described["parameters"] = parameters
    if each.request is not None:
        body = json_schema.schema_of(each.request, schemas, asked=True)
        described["requestBody"] = {
            "required": bool(json_schema.required_fields(each.request)),
            "content": {_JSON: {"schema": body}},
        }
    return described


def _answer(each: ApiOperation, schemas: dict[str, Schema]) -> Schema:
    if each.response is str:
        return {"description": "Text.", "content": {_TEXT: {"schema": {"type": "string"}}}}
    if not is_typeddict(each.response):
        return {"description": "An object.", "content": {_JSON: {"schema": {"type": "object"}}}}
    fields = json_schema.object_schema(each.response, schemas)
    told = fields.pop("description")
    fields["properties"] = {
        "schema": {"const": f"overlayd.{each.name}/v1"},
        **fields["properties"],
    }
    fields["required"] = ["schema", *fields["required"]]
    content: Schema = {_JSON: {"schema": fields}}
    if each.is_stream is not None:
        content[_LINES] = {"schema": json_schema.schema_of(each.is_stream, schemas)}
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


def _failures(kinds: set[type[OverlayError]]) -> dict[str, Schema]:
    """Return the answers that a request may get in place of its own, by status."""
    by_status: dict[int, list[str]] = {_WRONG_METHOD: [UsageError.code]}
    for kind in kinds:
        by_status.setdefault(kind.http_status, []).append(kind.code)
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(codes)}",
            "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, codes in sorted(by_status.items())
    }
