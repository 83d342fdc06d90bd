"""Options of a container's port as Docker has them: texts, in its labels and its driver options.

Owns: their names and texts, the same for both. Does not: apply them (`endpoints.attach`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from overlay import limits
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.core.dataplane.controls.port_controls import ControlChanges
from overlay.core.dataplane.controls.priority import parse_priority
from overlay.core.vlan.vlans import NO_VLANS, parse_vlans
from overlay.errors import UsageError
from overlay.model import LABEL_PREFIX

PORT_OPTIONS: Final = ("vlan", "isolated", "priority", "storm")
_ISOLATED: Final = "yes"
_OF_ROOT: Final = ("allow-non-ip", "allow-ip", "allow-mac", "allow-dhcp-server", "allow-ra")


def require_known(names: set[str], known: tuple[str, ...], *, of: str) -> None:
    """Raise UsageError for an option that is unknown, or that root alone may give.

    `of` is what has the options: "label" or "driver option".
    """
    unknown = sorted(names - set(known))
    if not unknown:
        return
    name = LABEL_PREFIX + unknown[0][:64]
    if unknown[0] in _OF_ROOT:
        raise UsageError(
            f"{of} {name} is not allowed",
            why="only root may let a container send what others don't, not all who may use Docker",
            hint=f"sudo overlayd attach docker:NAME --network NETWORK --{unknown[0]}",
        )
    raise UsageError(
        f"unknown {of} {name}",
        why=f"known {of}s: {', '.join(LABEL_PREFIX + each for each in known)}",
        hint=f"Make the container anew with other {of}s",
    )


def with_port_options(options: EndpointOptions, texts: Mapping[str, str]) -> EndpointOptions:
    """Return options with those that texts ask for, by their names; raises UsageError."""
    vlan, priority = texts.get("vlan"), texts.get("priority")
    controls = ControlChanges(
        storm=_storm(texts["storm"]) if "storm" in texts else None,
        priority=None if priority is None else parse_priority(priority, ""),
    )
    return replace(
        options,
        vlans=NO_VLANS if vlan is None else parse_vlans(vlan),
        isolated=_isolated(texts["isolated"]) if "isolated" in texts else None,
        controls=controls,
    )


def _isolated(text: str) -> bool:
    if text.strip().lower() != _ISOLATED:
        raise UsageError(
            f"{text[:64]!r} does not isolate a container",
            why="only root may except one from its network's isolation",
            hint=f"Use {_ISOLATED}, or sudo overlayd attach docker:NAME --network NETWORK "
            "--not-isolated",
        )
    return True


def _storm(text: str) -> int:
    low, high = limits.STORM_MIN, limits.STORM_MAX
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if not low <= number <= high:
        raise UsageError(
            f"{text[:64]!r} is not a number of frames a second",
            hint=f"Use {low} to {high}, such as 200",
        )
    return number
