"""Addresses for local endpoints: from own space, or by a grant from one who has some.

Owns: asking, answering and waiting for grants. Who owns what, and what to grant, is decided
by the pure `core.ipam`; a grant is durable here before anyone hears of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator

from overlay import limits
from overlay.agent.directory import Directory
from overlay.agent.journal import Journal
from overlay.agent.member import Member
from overlay.core import ipam
from overlay.core.events import GrantRefused, GrantWanted
from overlay.core.messages import GrantRefusal, GrantRequest, MemberState
from overlay.core.records import CLUSTER_SCOPE, Forgotten, Returned, Scope
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.model import Grant, Ip, Network, NodeId, Subnet, Vni, ip_text

_GRANT_TRY_S = 0.5  # per try; a request is repeated under its id, so a lost answer costs a try
_GRANT_TRIES = 3


class Addresses:
    """Allocation for this node's endpoints. Callers hold `lock(vni)` until they committed."""

    def __init__(self, member: Member, directory: Directory, journal: Journal) -> None:
        self._member = member
        self._directory = directory
        self._journal = journal
        self._locks: dict[Vni, asyncio.Lock] = {}
        self._waiting: dict[bytes, asyncio.Future[GrantRefusal | None]] = {}
        self._released: dict[tuple[Vni, Ip], float] = {}
