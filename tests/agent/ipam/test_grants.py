"""A grant request gets a grant, a refusal, or no answer if it cannot be decided now."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from overlay.agent.ipam.grants import GrantService
from overlay.core.protocol.messages import Delta, GrantRefusal, GrantRequest
from overlay.core.protocol.records import Scope
from overlay.errors import OverlayError
from overlay.model import Grant, Ip, Network, NodeId, Subnet, Vni, parse_ip

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"x" * 16)
BASE = parse_ip("10.1.0.0")
BLUE = Network(Vni(7), "blue", (Subnet(BASE, 16, Ip(BASE[:3] + b"\x01")),), OWN)
REQUEST = GrantRequest(b"r" * 8, Vni(7), BASE, 16, exact=False)


class Bench:
    """A grant service whose collaborators record their calls."""

    def __init__(self) -> None:
        self.gossip, self.allocator, self.event_log = MagicMock(), MagicMock(), MagicMock()
        directory = MagicMock()
        directory.network_by_vni.side_effect = lambda vni: BLUE if vni == 7 else None
        directory.node_name.return_value = "vm2"
        self.allocator.is_choosing.return_value = False
        self.grants = GrantService(self.gossip, directory, self.allocator, self.event_log)

    def decide(self, answer: Any) -> None:
        """Set what the address space decides."""
        self.allocator.space.decide_grant.return_value = (answer, [])


@pytest.fixture
def bench() -> Bench:
    """Return a bench on which this node may write."""
    return Bench()


@pytest.fixture
def grant() -> Grant:
    """Return a grant; the service does not look inside."""
    return MagicMock(spec=Grant)


def test_a_grant_is_committed_before_it_is_published(bench: Bench, grant: Grant) -> None:
    """The segments that are published are those of the commit."""
    bench.decide(grant)

    bench.grants.handle_request(OTHER, REQUEST)

    bench.gossip.commit.assert_called_once_with(Scope(7), [grant], [])
    bench.gossip.publish.assert_called_once_with(bench.gossip.commit.return_value)
    bench.gossip.node.send_to.assert_not_called()


def test_a_repeated_request_gets_the_same_grant(bench: Bench, grant: Grant) -> None:
    """If the grant is in this node's log already, its segment is sent again."""
    bench.decide(grant)
    bench.gossip.commit.return_value = []
    segment, other = MagicMock(), MagicMock()
    segment.written = (grant,)
    other.written = ()
    bench.gossip.node.store.segments_beyond.return_value = [segment, other]

    bench.grants.handle_request(OTHER, REQUEST)

    bench.gossip.node.send_to.assert_called_once_with(OTHER, Delta((segment,)))
    bench.gossip.publish.assert_not_called()


def test_a_refusal_is_sent_to_the_requester(bench: Bench) -> None:
    """Nothing is written for a refusal."""
    refusal = GrantRefusal(REQUEST.request_id, "reserved", 0)
    bench.decide(refusal)

    bench.grants.handle_request(OTHER, REQUEST)

    bench.gossip.node.send_to.assert_called_once_with(OTHER, refusal)
    bench.gossip.commit.assert_not_called()


@pytest.mark.parametrize("reason", ["unknown network", "may not write", "being chosen"])
def test_an_undecidable_request_gets_no_answer(bench: Bench, reason: str) -> None:
    """The requester repeats it, so it is ignored now."""
    request = REQUEST
    if reason == "unknown network":
        request = GrantRequest(b"r" * 8, Vni(8), BASE, 16, exact=False)
    bench.gossip.node.may_write.return_value = reason != "may not write"
    bench.allocator.is_choosing.return_value = reason == "being chosen"

    bench.grants.handle_request(OTHER, request)

    bench.allocator.space.decide_grant.assert_not_called()
    bench.gossip.node.send_to.assert_not_called()


def test_a_full_disk_is_logged(bench: Bench, grant: Grant) -> None:
    """A grant that cannot be written is neither sent nor an error of the caller."""
    bench.decide(grant)
    bench.gossip.commit.side_effect = OverlayError("cannot write the state file")

    bench.grants.handle_request(OTHER, REQUEST)

    bench.gossip.publish.assert_not_called()
    kind, text = bench.event_log.record.call_args.args
    assert (kind, text) == ("grant", "cannot write the state file")
