"""A router: networks whose containers reach each other through their gateways.

Owns: this value. Does not: know which networks exist (`routing`), or plan rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from overlay.model import Vni

"""The kind of declared object (`core.declared`) that routers are."""
ROUTER_SOFTWARE: Final = (0, 4, 0)
"""The first version that routes; older agents ignore routers without a word."""


@dataclass(frozen=True, slots=True)
class Router:
    """A router of the cluster, as its record in force has it."""

    name: str
    vnis: tuple[Vni, ...]  # of its networks, in order and each once
    allow_clear: bool = False  # packets of an encrypted network may travel in clear in another
    labels: tuple[tuple[str, str], ...] = ()
