"""Decode requests into their structs, and word the errors of invalid ones.

Owns: JSON and query strings in, and the error for each field that a struct refuses.
Does not: know any request; the structs hold the rules (`field_types` and the resources' modules).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from overlay.agent.api.schema.field_types import (
    SECRET,
    InvalidFieldError,
    Request,
    convert_custom,
    shown,
)
from overlay.errors import UsageError

Shape = TypeVar("Shape", bound=Request)

# The end of msgspec's messages is a path, such as "- at `$.subnets[0].gateway`".
_PLACE: Final = re.compile(r" - at (`key` in )?`\$([^`]*)`$")
_STEP: Final = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")
_UNKNOWN: Final = "Object contains unknown field"
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def decode(shape: type[Shape], body: bytes) -> Shape:
    """Return a request's body as its struct; raises UsageError.

    An empty body has no fields. A field that is null has its default, as if it were left out.
    """
    value: Any = {}
    if body:
        try:
            value = msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise UsageError(
                "the request body is not JSON", why=str(error), hint="Send a JSON object"
            ) from error
        except RecursionError as error:
            raise UsageError("the request body is nested too deeply") from error
    if not isinstance(value, dict):
        raise UsageError("the request body must be a JSON object")
    made = _converted(shape, value, strict=True)
    _require_printable(value)
    return made


def decode_query(shape: type[Shape], query: dict[str, str]) -> Shape:
    """Return a query string's parameters as their struct; raises UsageError.

    Numbers are texts here.
    """
    unknown = set(query) - set(shape.__struct_encode_fields__)
    if unknown:
        known = ", ".join(shape.__struct_encode_fields__)
        raise UsageError(
            f"unknown query parameter {shown(min(unknown))}",
            hint=f"Allowed here: {known or 'none'}",
            field=min(unknown),
        )
    _require_printable(query)
    return _converted(shape, query, strict=False)


def decode_part(shape: type[Shape], value: dict[str, Any], path: str) -> Shape:
    """Return a part of a request as its struct; an error's field is the path of what is wrong."""
    try:
        made = msgspec.convert(value, shape, dec_hook=convert_custom)
        _require_printable(value)
    except msgspec.ValidationError as error:
        found = _usage_error(shape, value, error)
        place = _PLACE.search(str(error))
        inner = "" if place is None else place[2].removeprefix(".")
        if inner.rpartition(".")[2].partition("[")[0] != found.field:  # unknown, or missing
            inner = f"{inner}.{found.field}"
        found.field = ".".join(filter(None, (path, inner.strip("."))))
        raise found from error
    except UsageError as error:
        error.field = ".".join(filter(None, (path, error.field)))
        raise
    return made


def _converted(shape: type[Shape], value: dict[str, Any], *, strict: bool) -> Shape:
    known = shape.__struct_encode_fields__
    given = {
        field: found for field, found in value.items() if found is not None or field not in known
    }
    try:
        return msgspec.convert(given, shape, strict=strict, dec_hook=convert_custom)
    except msgspec.ValidationError as error:
        raise _usage_error(shape, given, error) from error


def _require_printable(fields: dict[str, Any]) -> None:
    """Raise UsageError for control characters, which records and terminals must not get."""
    for field, value in fields.items():
        _require_printable_value(value, field, field)


def _require_printable_value(value: Any, field: str, place: str) -> None:
    if isinstance(value, dict):
        for key, found in value.items():
            _require_printable_value(key, field, place)
            _require_printable_value(found, field, place)
    elif isinstance(value, list):
        for index, found in enumerate(value):
            _require_printable_value(found, field, f"{place}[{index}]")
    elif isinstance(value, str) and not value.isprintable():
        raise UsageError(
            f"{place} must be text without control characters",
            why="it would be printed and stored as it is",
            hint="Remove them",
            field=field,
        )


def _usage_error(shape: Any, value: Any, error: msgspec.ValidationError) -> UsageError:
    """Return the error for a value that a struct refuses, worded by the field's type."""
    message = str(error)
    place = _PLACE.search(message)
    steps = [] if place is None else _STEP.findall(place[2])
    kind, found, is_secret = _at(inspect.type_info(shape), value, steps)
    if message.startswith(_UNKNOWN):
        at_top = set(value) - set(shape.__struct_encode_fields__)
        return _unknown_field(inspect.type_info(shape) if at_top else kind, at_top or found)
    missing = _MISSING.match(message)
    if missing is not None:
        return UsageError(
            f"{missing[1]} is missing{_parent(steps, within=True)}",
            hint=f"Add the field {missing[1]}",
            field=missing[1],
        )
    field, named = _names(steps)
    if isinstance(error.__cause__, InvalidFieldError):
        cause = error.__cause__
        return UsageError(f"{field}: {cause.what}", why=cause.why, hint=cause.hint, field=field)
    visible = not is_secret and place is not None and not place[1] and found is not _UNSEEN
    why = hint = ""
    if visible and found == "":
        problem = f"{named} must not be empty"
    elif visible and isinstance(kind, inspect.Metadata):
        schema = kind.extra_json_schema or {}
        problem = f"{field}: {shown(found)} is not a valid {schema['title']}"
        why = schema["description"]
        hint = f"Such as {', '.join(schema['examples'])}" if "examples" in schema else ""
    else:
        problem = f"{named} must be {_expected(kind)}{f', not {shown(found)}' if visible else ''}"
    return UsageError(f"{problem}{_parent(steps)}", why=why, hint=hint, field=field)


def _unknown_field(kind: Any, fields: Iterable[str]) -> UsageError:
    """Return the error for a field that a struct does not have, with those that it has."""
    known = [each.encode_name for each in kind.fields]
    unknown = min(set(fields) - set(known))
    similar = difflib.get_close_matches(str(unknown), known, n=1)
    meant = f"Did you mean {similar[0]}? " if similar else ""
    return UsageError(
        f"unknown field {shown(unknown)}",
        hint=f"{meant}Allowed here: {', '.join(known) or 'no fields'}",
        field=unknown,
    )


_UNSEEN: Final = object()  # in place of a value that an error's path does not lead to


def _at(kind: Any, value: Any, steps: list[tuple[str, str]]) -> tuple[Any, Any, bool]:
    """Return the type and the value at a path, and whether the value is a secret."""
    kind, is_secret = _unwrapped(kind)
    for field, index in steps:
        inner = inspect.type_info(str)
        if field and isinstance(kind, inspect.StructType):
            inner = next((e.type for e in kind.fields if e.encode_name == field), inner)
            value = value.get(field, _UNSEEN) if isinstance(value, dict) else _UNSEEN
        elif isinstance(kind, inspect.VarTupleType) and index.isdecimal():
            inner = kind.item_type
            value = value[int(index)] if isinstance(value, list) else _UNSEEN
        elif isinstance(kind, inspect.DictType):
            inner, value = kind.value_type, _UNSEEN
        kind, found = _unwrapped(inner)
        is_secret = is_secret or found
    return kind, value, is_secret


def _unwrapped(kind: Any) -> tuple[Any, bool]:
    """Return a type without null, and whether it is marked as a secret; its description stays."""
    if isinstance(kind, inspect.UnionType):
        kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
    is_secret = isinstance(kind, inspect.Metadata) and bool((kind.extra or {}).get(SECRET))
    described = isinstance(kind, inspect.Metadata) and kind.extra_json_schema
    if isinstance(kind, inspect.Metadata) and not described:
        kind = kind.type
    return kind, is_secret


def _expected(kind: Any) -> str:
    """Return what a field must be, as a noun phrase."""
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(repr(each) for each in kind.values)
    if isinstance(kind, inspect.IntType):
        return f"a whole number from {kind.ge} to {kind.le}"
    if isinstance(kind, inspect.StrType):
        return f"text of at most {kind.max_length} characters"
    if isinstance(kind, inspect.VarTupleType):
        objects = isinstance(kind.item_type, inspect.StructType | inspect.DictType)
        items = "objects" if objects else "texts"
        if kind.max_length is None:
            return f"a list of {items}"
        fewest = f"{kind.min_length} to" if kind.min_length else "at most"
        return f"a list of {fewest} {kind.max_length} {items}"
    if isinstance(kind, inspect.DictType):
        return f"an object of at most {kind.max_length} texts"
    return _PLAIN.get(type(kind), "an object")


_PLAIN: Final[dict[Any, str]] = {inspect.BoolType: "true or false", inspect.FloatType: "a number"}


def _names(steps: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the last field of a path, and that field with its indexes."""
    fields = [number for number, (field, _) in enumerate(steps) if field]
    if not fields:
        return "", "the request"
    field = steps[fields[-1]][0]
    return field, field + "".join(f"[{index}]" for _, index in steps[fields[-1] + 1 :])


def _parent(steps: list[tuple[str, str]], *, within: bool = False) -> str:
    """Return where the last field of a nested path stands, such as ` (in subnets[0])`."""
    fields = [number for number, (field, _) in enumerate(steps) if field]
    outer = steps if within else steps[: fields[-1]] if fields else []
    text = "".join(f".{field}" if field else f"[{index}]" for field, index in outer)
    return f" (in {text[1:]})" if text else ""
