"""No value shows its secret when it is printed, logged or in a traceback."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import msgspec
import overlay

SECRET = frozenset({"secret", "secrets", "ticket", "token", "private", "authority_key", "join_key"})


def classes() -> Iterator[type]:
    """Yield every class of the package."""
    for module in pkgutil.walk_packages(overlay.__path__, "overlay."):
        if module.name.endswith("__main__"):
            continue
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if found.__module__ == module.name:
                yield found


def test_no_value_prints_its_secret() -> None:
    """A field with a secret's name is left out of its class's repr."""
    shown: list[str] = []
    hidden: list[str] = []
    for found in classes():
        if issubclass(found, tuple):
            names = getattr(found, "_fields", ())
            shown += [f"{found.__name__}.{name}" for name in names if name in SECRET]
        elif issubclass(found, msgspec.Struct):
            for name in SECRET.intersection(found.__struct_fields__):
                (hidden if "__repr__" in vars(found) else shown).append(f"{found.__name__}.{name}")
        elif dataclasses.is_dataclass(found):
            for field in dataclasses.fields(found):
                if field.name in SECRET and (
                    "bytes" in str(field.type) or "str" in str(field.type)
                ):
                    (shown if field.repr else hidden).append(f"{found.__name__}.{field.name}")

    assert shown == []
    assert {"Token.secret", "ClusterKey.secret", "JoinSpec.token", "JoinRequest.token"} <= set(
        hidden
    )
