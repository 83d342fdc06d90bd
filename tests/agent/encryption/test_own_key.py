"""This node's WireGuard key: random, durable, published exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.encryption.own_key import OwnKey
from overlay.agent.state.database import Row, StateDatabase
from overlay.core.encryption.key_record import WireguardKey, key_record
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.records import Key, Scope, Segment, Value
from overlay.model import Card, NodeId, node_id_of, parse_ip
from overlay.sim.environment.notary import FakeSigner

SIGN_KEY = b"o" * 32
OWN: NodeId = node_id_of(SIGN_KEY)


class Gossip:
    """The state file and the log of one node."""

    def __init__(self, path: Path) -> None:
        self.node_id = OWN
        self.state = StateDatabase(path / "state.db")
        store = Store(OWN)
        address = parse_ip("192.0.2.1")
        store.accept_card(Card(OWN, "own", SIGN_KEY, SIGN_KEY, address, 7948, 1, 1500, "test"))
        self.node = SimpleNamespace(store=store)
        self._writer = LogWriter(store, FakeSigner(SIGN_KEY))
        self.published: list[Segment] = []

    def commit(
        self,
        scope: Scope,
        puts: Sequence[Value] = (),
        deletes: Sequence[Key] = (),
        rows: Sequence[Row] = (),
    ) -> list[Segment]:
        """Write records and documents."""
        segments = self._writer.write(scope, puts, deletes)
        self.state.commit(rows)
        for segment in segments:
            self.node.store.accept(segment)
        return segments

    def publish(self, segments: Sequence[Segment]) -> None:
        """Note what is published."""
        self.published += segments


@pytest.fixture
def gossip(tmp_path: Path) -> Gossip:
    """Return a node without a key."""
    return Gossip(tmp_path)


def own_key(gossip: Gossip) -> OwnKey:
    """Return the key as a start of the agent finds it."""
    return OwnKey(cast("Any", gossip))


def test_a_key_is_made_once_and_kept(gossip: Gossip) -> None:
    """A second start finds it on disk, publishes nothing, and shows no private part."""
    first = own_key(gossip)
    first.publish()
    again = own_key(gossip)
    again.publish()

    assert len(gossip.published) == 1
    assert again.is_published
    assert again.private == first.private
    assert again.public is not None
    assert again.public.epoch == 1
    assert again.private is not None
    assert again.private.hex() not in repr(gossip.published)
    assert again.private[0] & 7 == 0


def test_two_nodes_have_different_keys(tmp_path: Path, gossip: Gossip) -> None:
    """Nothing but chance decides: the same identity makes another key."""
    (tmp_path / "other").mkdir()
    other = own_key(Gossip(tmp_path / "other"))
    one = own_key(gossip)
    one.publish()
    other.publish()

    assert one.private != other.private


def test_a_key_of_a_lost_disk_is_replaced(gossip: Gossip) -> None:
    """Where the records hold another key, this one gets an epoch of its own."""
    gossip.commit(Scope(0), [key_record(WireguardKey(1, b"l" * 32))])
    key = own_key(gossip)
    key.publish()

    assert key.is_published
    assert key.public is not None
    assert key.public.epoch == 2


def test_a_withdrawn_key_can_return(gossip: Gossip) -> None:
    """A host that lost WireGuard and has it again publishes the same key."""
    key = own_key(gossip)
    key.publish()
    before = key.public
    key.withdraw()
    withdrawn = not key.is_published
    key.publish()

    assert withdrawn
    assert key.is_published
    assert key.public == before
