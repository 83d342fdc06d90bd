"""Declared objects of one kind as values, by name and by each of their networks.

Owns: reading them once for each change, and which of a network's objects count. Does not: write
them, or know what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from overlay.core.declared.objects import DeclaredObjects
from overlay.errors import RemoteError
from overlay.model import Vni


class DeclaredValue(Protocol):
    """A value with a name."""

    @property
    def name(self) -> str:
        """The name, unique in the cluster whatever its case."""


Value = TypeVar("Value", bound=DeclaredValue)


class DeclaredCatalog(Generic[Value]):
    """The objects of a kind that exist; a record that nobody can read is none."""

    def __init__(
        self,
        objects: DeclaredObjects,
        kind: int,
        decode: Callable[[str, bytes], Value],
        vnis_of: Callable[[Value], Iterable[Vni]],
        per_network_max: int,
    ) -> None:
        self._objects = objects
        self._kind = kind
        self._decode = decode
        self._vnis_of = vnis_of
        self._per_network_max = per_network_max
        self._number = -1
        self._by_name: dict[str, Value] = {}
        self._by_vni: dict[Vni, tuple[Value, ...]] = {}

    def all(self) -> list[Value]:
        """Return all of them, by name."""
        self._read()
        return list(self._by_name.values())

    def find(self, name: str) -> Value | None:
        """Return the one with a name, whatever its case; or None."""
        self._read()
        return self._by_name.get(name.lower())

    def on(self, vni: Vni) -> tuple[Value, ...]:
        """Return those on a network, by name, as many as count."""
        self._read()
        return self._by_vni.get(vni, ())

    def _read(self) -> None:
        if self._number == self._objects.change_number():
            return
        self._number = self._objects.change_number()
        self._by_name, by_vni = {}, dict[Vni, list[Value]]()
        for placed in self._objects.existing(self._kind):
            try:
                value = self._decode(placed.value.name, placed.value.body)
            except RemoteError:
                continue
            self._by_name[value.name.lower()] = value
            for vni in self._vnis_of(value):
                by_vni.setdefault(vni, []).append(value)
        self._by_vni = {vni: tuple(found[: self._per_network_max]) for vni, found in by_vni.items()}
