"""This host as a client of virtual addresses: the networks that it is on, and its table's place.

The table is in the host's own namespace. Behind a gate it is in the gate's, so that the host tracks
nothing: what it sends to a virtual address goes there (`kernel.gate.virtual_neighbors`).

Owns: which of the two it is. Does not: write the table (`client_tables`), or decide whether there
is a gate (`agent.exposure`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from overlay.model import Vni

Identity: TypeAlias = tuple[int, int]
"""The identity of a network namespace: device and inode."""


class Place(NamedTuple):
    """The namespace of a table. `of_gate`: it is the gate's, and translates for the host."""

    path: str
    identity: Identity
    of_gate: bool = False


class HostNetworks(Protocol):
    """Knows the networks that this host itself is on."""

    exposed_vnis: set[Vni]


class HostTranslation(Protocol):
    """Knows where this host translates."""

    @property
    def is_settled(self) -> bool:
        """Return whether that is known."""

    @property
    def gate_place(self) -> tuple[str, Identity] | None:
        """Return path and identity of its gate's namespace; None without a gate."""


class HostClient:
    """This host; `identity` is that of its own namespace, once that is known.

    `may_have_own_table`: that namespace may have a table while the gate's should, by an agent of
    before or as this one has written it.
    """

    def __init__(self, networks: HostNetworks, translation: HostTranslation) -> None:
        self._networks = networks
        self._translation = translation
        self.identity: Identity | None = None
        self.is_leaving = False
        self.may_have_own_table = True

    @property
    def vnis(self) -> set[Vni]:
        """Return the networks whose virtual addresses it reaches."""
        return set() if self.is_leaving else self._networks.exposed_vnis

    def place(self, own: Place) -> Place | None:
        """Return its table's place, given its own namespace; None while that is not known."""
        if not self._translation.is_settled:
            return None
        gate = self._translation.gate_place
        return own if gate is None else Place(*gate, of_gate=True)
