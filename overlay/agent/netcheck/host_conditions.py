"""Tell members what only this host sees of itself, and keep what they tell.

A flushed filter, or packets with wrong checksums, are seen by one host and concern several. An
announcement is a CheckAnswer that nobody asked for, with number 0, which agents of before ignore
(docs/PROTOCOL.md section 6.3).

Owns: when an announcement is sent and how long one counts, and their texts for `status`.
Does not: find out what is wrong.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Final

from overlay import limits
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.gossip.context import NodeContext
from overlay.agent.netcheck.checksum_errors import ChecksumErrors
from overlay.agent.paths.controller import PathController
from overlay.agent.process.controller import Controller
from overlay.core.protocol.messages import CheckAnswer, CheckCondition
from overlay.model import NodeId

NOTHING: Final = CheckCondition(0)
ANNOUNCEMENT: Final = 0  # the number of an answer without a question
_TEXTS: Final = {
    CheckCondition.FILTER_REWRITTEN: (
        (
            "another program on {name} changed or deleted overlayd's nftables rules within the "
            "last 10 minutes; its agent has rewritten them"
        ),
        (
            "On {name}: restart Docker or the firewall, whose rules do not return by themselves; "
            "'overlayd events --kind repaired' there lists each time"
        ),
    ),
    CheckCondition.FILTER_BROKEN: (
        "{name} cannot write its filter of the VXLAN port",
        "On {name}: overlayd status",
    ),
    CheckCondition.CHECKSUM_ERRORS: (
        "{name} or its containers receive packets with wrong checksums",
        (
            "An interface of a sender computes them wrongly inside VXLAN. On {name}: sudo overlayd "
            "netcheck counts them; on the hosts that send there: ethtool -K INTERFACE tx off"
        ),
    ),
}


class HostConditions(Controller):
    """The conditions of this host, and of members by their own account."""

    name = "conditions of members"
    interval_s = limits.CONDITIONS_CHECK_S
    level = "warn"

    def __init__(
        self,
        context: NodeContext,
        paths: PathController,
        underlay_filter: UnderlayFilter,
        checksum_errors: ChecksumErrors,
    ) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._paths = paths
        self._filter = underlay_filter
        self._checksum_errors = checksum_errors
        self._announced = NOTHING
        self._announced_at = -math.inf
        self._of_members: dict[NodeId, tuple[CheckCondition, float]] = {}

    def own(self) -> CheckCondition:
        """Return what is wrong on this host."""
        found = NOTHING
        if self.filter_rewritten_s() is not None:
            found |= CheckCondition.FILTER_REWRITTEN
        if self._filter.fault is not None:
            found |= CheckCondition.FILTER_BROKEN
        if self._checksum_errors.is_failing():
            found |= CheckCondition.CHECKSUM_ERRORS
        return found

    def filter_rewritten_s(self) -> float | None:
        """Return how long ago overlayd's rules had to be rewritten, if that is not long ago."""
        at = self._filter.rewritten_at
        if at is None:
            return None
        ago = self._gossip.transport.now() - at
        return ago if ago <= limits.NETCHECK_REWRITTEN_S else None

    async def reconcile(self) -> None:
        """Announce a change at once, and what lasts now and then: a datagram may be lost."""
        own, now = self.own(), self._gossip.transport.now()
        is_news = own != self._announced
        if not is_news and (not own or now < self._announced_at + limits.CONDITIONS_REPEATED_S):
            return
        self._announced, self._announced_at = own, now
        answer = CheckAnswer(ANNOUNCEMENT, int(time.time() * 1000), own)
        for view in list(self._paths.paths())[: limits.NETCHECK_PEERS_MAX]:
            self._gossip.node.send_to(view.node_id, answer)
        self._gossip.transport.flush_soon()

    def note(self, sender: NodeId, found: CheckCondition) -> None:
        """Note what a member says of itself, in an announcement or an answer."""
        before = self._present(sender)
        if found:
            if len(self._of_members) >= limits.CONDITIONS_MEMBERS_MAX:
                self._of_members.clear()
            self._of_members[sender] = (found, self._gossip.transport.now())
        else:
            self._of_members.pop(sender, None)
        name = self._directory.node_name(sender)
        for condition in found & ~before:
            text = _TEXTS[condition][0].format(name=name)
            self._event_log.record("path", text, level=logging.WARNING, peer=name)

    def _present(self, node_id: NodeId) -> CheckCondition:
        found, at = self._of_members.get(node_id, (NOTHING, -math.inf))
        is_old = self._gossip.transport.now() > at + 2.5 * limits.CONDITIONS_REPEATED_S
        return NOTHING if is_old else found

    def notices(self) -> Iterator[tuple[str, str]]:
        """Yield what members say of themselves, each with what to do."""
        for node_id in list(self._of_members):
            name = self._directory.node_name(node_id)
            for condition in self._present(node_id):
                text, hint = _TEXTS[condition]
                yield text.format(name=name), hint.format(name=name)
