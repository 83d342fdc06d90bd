"""Members whose software is too old for what this host would write.

Owns: reading their versions, and the error that names them. Does not: know kinds of record.
"""

from __future__ import annotations

import re
from typing import Final

from overlay.core.node import Node
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError

Version = tuple[int, int, int]

_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?", re.ASCII)


def older_members(node: Node, first: Version) -> list[str]:
    """Return the live members older than a version, such as `vm2 (overlayd 0.2.0)`, by name."""
    found = sorted(
        (card.name, card.software)
        for member in node.membership.members()
        if member.state in (MemberState.ALIVE, MemberState.SUSPECT)
        and (card := node.store.card(member.node_id)) is not None
        and is_older(card.software, first)
    )
    return [f"{host} (overlayd {software})" for host, software in found]


def require_software(node: Node, first: Version, title: str, consequence: str) -> None:
    """Raise ConflictError while a live member is older than a version.

    `consequence`: what such a member does, as a clause that follows its name.
    """
    old = older_members(node, first)
    if old:
        raise ConflictError(
            f"{title} cannot be written yet",
            why=f"{', '.join(old)} {consequence}",
            hint="Upgrade it first; 'overlayd members' shows the versions",
        )


def is_older(software: str, first: Version) -> bool:
    """Return whether a version precedes another; an invalid one does not."""
    numbers = _VERSION.match(software)
    return numbers is not None and tuple(int(n or 0) for n in numbers.groups()) < first
