"""One object of the declared state, as the plan compares it.

Owns: the kinds of object, their order, and which of their settings cannot change.
Does not: know what a setting means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

Setting: TypeAlias = str | int | bool | tuple[str, ...] | None


class ItemKind(NamedTuple):
    """A kind of object: how it is called, and what cannot change while it exists."""

    noun: str
    fixed: frozenset[str] = frozenset()
    why_fixed: str = ""


NETWORK: Final = "network"
SERVICE: Final = "service"
POLICY: Final = "policy"
ROUTER: Final = "router"
KINDS: Final[Mapping[str, ItemKind]] = {
    NETWORK: ItemKind(
        "network",
        frozenset(
            {
                "driver",
                "parent",
                "vni",
                "subnets",
                "ipv6",
                "gateway",
                "auxiliary",
                "block_length",
                "isolate_subnets",
                "encrypted",
            }
        ),
        "containers on all hosts have addresses, routes and tunnels by it",
    ),
    SERVICE: ItemKind(
        "service",
        frozenset({"network", "ips", "dns_rr"}),
        "clients on all hosts use the addresses that its name has",
    ),
    POLICY: ItemKind(
        "policy",
        frozenset({"network"}),
        "it selects containers of the network that it is about",
    ),
    ROUTER: ItemKind("router"),
    "dns": ItemKind("DNS record"),
    "expose": ItemKind("exposure"),
    "publish": ItemKind("published port"),
    "plug": ItemKind("plug"),
}
"""Each kind needs those before it: objects are created in this order, and removed in reverse."""


@dataclass(frozen=True, slots=True)
class DeclaredItem:
    """An object: its kind, its identity within the kind, and its settings.

    A setting that is left out may have any value. One of a network's subnet is followed by the
    subnet: `gateway 10.32.0.0/16`. `path`: where the file has the object, or empty.
    `source`: what its kind makes of it, which no plan looks at.
    """

    kind: str
    identity: tuple[str, ...]
    settings: Mapping[str, Setting]
    owner: str = ""
    path: str = field(default="", compare=False)
    source: object = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """Return what it is the same object by; names differ by more than case."""
        return self.kind, tuple(part.lower() for part in self.identity)

    @property
    def title(self) -> str:
        """Return what people call it, such as `DNS record blue/database`."""
        return f"{KINDS[self.kind].noun} {'/'.join(self.identity)}"
