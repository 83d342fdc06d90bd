"""Bodies of declared objects: JSON arrays, checked item by item when they are read.

Owns: the encoding, and the refusal of what no agent writes. Does not: know any kind of object.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from overlay import limits
from overlay.errors import ConflictError

Found = TypeVar("Found")


def encode(fields: list[Any], title: str) -> bytes:
    """Return a body; raises ConflictError if a record cannot hold it."""
    body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) > limits.DECLARED_BODY_SIZE_MAX:
        raise ConflictError(
            f"{title} is too large for a record",
            why=f"it takes {len(body)} bytes; the limit is {limits.DECLARED_BODY_SIZE_MAX}",
            hint="Use fewer or shorter labels, names or addresses",
        )
    return body


def decode(body: bytes, make: Callable[..., Found]) -> Found | None:
    """Return what `make` makes of a body's fields; None if they are not as an agent writes them.

    A newer agent may write further fields, which are left out.
    """
    try:
        fields = json.loads(body)
        return make(*fields) if isinstance(fields, list) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def require(value: Any, kind: type[Found], size_max: int = limits.TEXT_SIZE_MAX) -> Found:
    """Return a field of exactly this type; raises ValueError for another, or one that is long."""
    if type(value) is not kind or (isinstance(value, str | list) and len(value) > size_max):
        raise ValueError(kind.__name__)
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(value)
    return value
