"""JSON Schema from annotated types: what a request takes and an answer has, said once.

A shape is a TypedDict; mypy holds the code to it, and this turns it into the schema. Keywords of
JSON Schema that Python's types have no word for stand in `Annotated[..., {...}]`. Pure.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from overlay import limits
from overlay.model import NAME_PATTERN

Schema = dict[str, Any]

_PRIMITIVES: Final[Mapping[Any, str]] = {
    str: "string", bool: "boolean", int: "integer", float: "number", dict: "object",
    types.NoneType: "null",
}  # fmt: skip

# What several requests take.
Text = Annotated[str, {"minLength": 1, "maxLength": limits.API_TEXT_LENGTH_MAX}]
Name = Annotated[
    str,
    {
        "pattern": f"^{NAME_PATTERN.pattern.replace('a-z', 'a-zA-Z')}$",
        "maxLength": limits.NAME_LENGTH_MAX,
    },
]
Address = Annotated[str, {"minLength": 1, "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}]
Port = Annotated[int, {"minimum": 1, "maximum": 65535}]
Labels = Annotated[
    dict[str, Annotated[str, {"maxLength": limits.LABEL_SIZE_MAX}]],
    {"maxProperties": limits.LABEL_COUNT_MAX},
]
NetworkNames = Annotated[list[Text], {"maxItems": limits.NETWORK_COUNT_MAX}]


def schema_of(shape: Any, components: dict[str, Schema], *, asked: bool = False) -> Schema:
    """Return a type's schema; TypedDicts go to `components` and are referred to.

    What is `asked` of a caller is closed to unknown fields, and each optional one may be null.
    """
    origin = get_origin(shape)
    if is_typeddict(shape):
        known = components.get(shape.__name__)
        made = object_schema(shape, components, asked=asked)
        assert known in (None, made), f"two shapes are called {shape.__name__}"
        components[shape.__name__] = made
        return {"$ref": f"#/components/schemas/{shape.__name__}"}
    if origin is Annotated:
        inner, *keywords = get_args(shape)
        schema = schema_of(inner, components, asked=asked)
        for each in keywords:
            schema = {**schema, **each}
        return schema
    if origin is Literal:
        return {"enum": list(get_args(shape))}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, components, asked=asked) for each in get_args(shape)]}
    if origin is list:
        return {
            "type": "array",
            "items": schema_of(get_args(shape)[0], components, asked=asked),
        }
    if origin is dict:
        values = schema_of(get_args(shape)[1], components, asked=asked)
        return {"type": "object", "additionalProperties": values}
    return {} if shape is Any else {"type": _PRIMITIVES[shape]}


def object_schema(shape: Any, components: dict[str, Schema], *, asked: bool = False) -> Schema:
    """Return the schema of a TypedDict itself, described by its docstring."""
    needed = required_fields(shape)
    properties: dict[str, Schema] = {}
    for name, hint in get_type_hints(shape, include_extras=True).items():
        inner = get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint
        schema = schema_of(inner, components, asked=asked)
        if asked and name not in needed:
            schema = {"anyOf": [schema, {"type": "null"}]}
        properties[name] = schema
    described: Schema = {
        "type": "object",
        "description": (shape.__doc__ or "").partition("\n")[0],
        "properties": properties,
        "required": sorted(needed),
    }
    return {**described, "additionalProperties": False} if asked else described


def required_fields(shape: Any) -> set[str]:
    """Return the fields that must be there.

    `__required_keys__` does not see Required and NotRequired where annotations are texts (PEP 655
    and PEP 563 together): those are looked for here.
    """
    needed = set(shape.__required_keys__)
    for name, hint in get_type_hints(shape, include_extras=True).items():
        if get_origin(hint) is Required:
            needed.add(name)
        elif get_origin(hint) is NotRequired:
            needed.discard(name)
    return needed


def field_names(shape: Any) -> tuple[str, ...]:
    """Return the names of a shape's fields, its bases' first."""
    return tuple(shape.__annotations__)
