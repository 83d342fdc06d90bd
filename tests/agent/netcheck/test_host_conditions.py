"""This host reports its conditions to members, and shows those that they report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from overlay import limits
from overlay.agent.netcheck.host_conditions import ANNOUNCEMENT, NOTHING, HostConditions
from overlay.core.protocol.messages import CheckCondition
from overlay.model import NodeId

PEER = NodeId(b"p" * 16)
REWRITTEN = CheckCondition.FILTER_REWRITTEN


class Host:
    """A host with one peer, whose clock a test sets; its messages are only noted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sent: list[Any] = []
        self.events: list[str] = []
        self.filter = SimpleNamespace(fault=None, rewritten_at=None)
        gossip = SimpleNamespace(
            node=SimpleNamespace(send_to=lambda _to, message: self.sent.append(message)),
            transport=SimpleNamespace(flush_soon=lambda: None, now=lambda: self.now),
        )
        context = SimpleNamespace(
            gossip=gossip,
            directory=SimpleNamespace(node_name=lambda _node: "vm2"),
            event_log=SimpleNamespace(record=lambda _kind, text, **_more: self.events.append(text)),
        )
        paths = SimpleNamespace(paths=lambda: iter([SimpleNamespace(node_id=PEER)]))
        errors = SimpleNamespace(is_failing=lambda: False)
        self.conditions = HostConditions(*cast("Any", (context, paths, self.filter, errors)))


async def test_a_change_is_announced_at_once_and_then_seldom() -> None:
    """Nothing is sent by a healthy host; the end of a condition is told, too."""
    host = Host()
    await host.conditions.reconcile()
    assert host.sent == []
    host.filter.rewritten_at = host.now
    for _ in range(5):
        await host.conditions.reconcile()
        host.now += limits.CONDITIONS_CHECK_S
    [first] = host.sent
    assert (first.number, first.conditions) == (ANNOUNCEMENT, REWRITTEN)
    host.now += limits.CONDITIONS_REPEATED_S
    await host.conditions.reconcile()
    assert len(host.sent) == 2
    host.now += limits.NETCHECK_REWRITTEN_S
    await host.conditions.reconcile()
    assert host.sent[-1].conditions == NOTHING


async def test_a_member_is_named_until_it_says_otherwise() -> None:
    """With one event at the begin, however often it is repeated."""
    host = Host()
    for _ in range(3):
        host.conditions.note(PEER, REWRITTEN | CheckCondition.FILTER_BROKEN)
    texts = [text for text, _hint in host.conditions.notices()]
    assert len(texts) == len(host.events) == 2
    assert "another program on vm2" in texts[0]
    host.conditions.note(PEER, NOTHING)
    assert list(host.conditions.notices()) == []


async def test_a_member_that_says_no_more_is_forgotten() -> None:
    """Its agent has died, or it is gone: what it said last is not repeated for ever."""
    host = Host()
    host.conditions.note(PEER, REWRITTEN)
    host.now += 3 * limits.CONDITIONS_REPEATED_S
    assert list(host.conditions.notices()) == []


async def test_few_members_are_remembered() -> None:
    """However many identities report something."""
    host = Host()
    for number in range(limits.CONDITIONS_MEMBERS_MAX + 5):
        host.conditions.note(NodeId(number.to_bytes(16, "big")), REWRITTEN)
    assert 0 < len(list(host.conditions.notices())) <= limits.CONDITIONS_MEMBERS_MAX
