"""Notice packets that reach this host or its containers with a wrong checksum.

An interface that leaves checksums to hardware which does not compute them inside VXLAN lets pings
pass, and stalls TCP. The receiving kernel counts and drops each such packet: the host's by the
checksum of the VXLAN packet, which covers the frame in it, or the container's by that of TCP.

Owns: when the counters are read, and the health line. Does not: know which host sends them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.kernel.netcheck.container_counters import checksum_errors_in
from overlay.kernel.netcheck.counters import read_checksum_errors

_HOST = (0, 0)  # no namespace has this identity


class ReceivedErrors(NamedTuple):
    """The packets with wrong checksums that a container, or the host itself, has received."""

    where: str
    total: int
    recent: int  # within the last `limits.CHECKSUM_ERRORS_RECENT_S`


class ChecksumErrors(Controller):
    """The counters of this host and its containers."""

    name = "checksum counters"
    level = "warn"

    def __init__(self, context: NodeContext, attachments: Attachments) -> None:
        super().__init__(context.event_log)
        self._kernel = context.kernel
        self._attachments = attachments
        self._event_loop = asyncio.get_running_loop()
        # By container, and of the host: the readings of the last minute, oldest first.
        self._readings: dict[tuple[int, int], deque[tuple[float, int]]] = {}

    def next_interval_s(self) -> float:
        """Return a time in which the readings take a small part of the kernel thread."""
        share = limits.CONTAINER_CHECK_EACH_S * len(self._targets())
        longest = limits.CHECKSUM_ERRORS_INTERVAL_MAX_S
        return min(max(share, limits.CHECKSUM_ERRORS_INTERVAL_S), longest)

    async def reconcile(self) -> None:
        """Read the counters of the host and of every container."""
        targets = self._targets()
        kept = {_HOST, *targets}
        self._readings = {at: each for at, each in self._readings.items() if at in kept}
        self._note(_HOST, (await self._kernel.call(read_checksum_errors)).udp)
        places = [(each.netns_path, identity) for identity, each in targets.items()]
        for at in range(0, len(places), limits.CONTAINER_CHECKS_AT_ONCE):
            several = places[at : at + limits.CONTAINER_CHECKS_AT_ONCE]
            found = await self._kernel.call(checksum_errors_in, several)
            for identity, errors in found.items():
                self._note(identity, errors.tcp + errors.udp)

    def _targets(self) -> dict[tuple[int, int], Attachment]:
        return {each.netns_identity: each for each in self._attachments.values() if each.plugged}

    def _note(self, identity: tuple[int, int], count: int) -> None:
        now = self._event_loop.time()
        readings = self._readings.setdefault(identity, deque())
        readings.append((now, count))
        while len(readings) > 1 and readings[1][0] <= now - limits.CHECKSUM_ERRORS_RECENT_S:
            readings.popleft()

    def errors(self) -> Iterator[ReceivedErrors]:
        """Yield where wrong checksums were received within the last minute."""
        names = {_HOST: "this host"}
        names |= {identity: each.target for identity, each in self._targets().items()}
        for identity, readings in self._readings.items():
            recent = readings[-1][1] - readings[0][1]
            if recent and identity in names:
                yield ReceivedErrors(names[identity], readings[-1][1], recent)

    def is_failing(self) -> bool:
        """Return whether too many were received lately for a coincidence."""
        return any(each.recent >= limits.CHECKSUM_ERRORS_MIN for each in self.errors())

    def faults(self) -> Iterator[Fault]:
        """Yield where wrong checksums are received."""
        yield from super().faults()
        for each in self.errors():
            if each.recent >= limits.CHECKSUM_ERRORS_MIN:
                yield Fault(
                    f"{each.where} receives packets with wrong checksums: {each.recent} within "
                    "the last minute were dropped",
                    "An interface leaves checksums to hardware that does not compute them inside "
                    "VXLAN: pings pass, TCP stalls. On the sending host: ethtool -K INTERFACE tx "
                    "off; 'overlayd netcheck' says more",
                )
