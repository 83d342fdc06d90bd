"""This node's WireGuard key: random, durable, published exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.encryption.own_keys import OwnKeys
from overlay.agent.state.database import Row, StateDatabase
from overlay.agent.state.wireguard_keys import (
    WIREGUARD,
    StoredWireguardKey,
    StoredWireguardKeys,
)
from overlay.core.encryption.key_record import WireguardKey, key_record
from overlay.core.encryption.rotation import OwnSlots
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


def own_key(gossip: Gossip) -> OwnKeys:
    """Return the key as a start of the agent finds it."""
    return OwnKeys(cast("Any", gossip))


def test_a_key_is_made_once_and_kept(gossip: Gossip) -> None:
    """A second start finds it on disk, publishes nothing, and shows no private part."""
    first = own_key(gossip)
    first.publish()
    again = own_key(gossip)
    again.publish()

    assert len(gossip.published) == 1
    assert again.is_published
    assert again.current == first.current
    assert [key.epoch for key in again.public] == [1]
    assert again.current is not None
    assert again.current.private.hex() not in repr(gossip.published)
    assert again.current.private[0] & 7 == 0


def test_two_nodes_have_different_keys(tmp_path: Path, gossip: Gossip) -> None:
    """Nothing but chance decides: the same identity makes another key."""
    (tmp_path / "other").mkdir()
    other = own_key(Gossip(tmp_path / "other"))
    one = own_key(gossip)
    one.publish()
    other.publish()

    assert one.current != other.current


def test_a_key_of_a_lost_disk_is_replaced(gossip: Gossip) -> None:
    """Where the records hold another key, this one gets an epoch of its own."""
    gossip.commit(Scope(0), [key_record(WireguardKey(1, b"l" * 32))])
    key = own_key(gossip)
    key.publish()

    assert key.is_published
    assert [each.epoch for each in key.public] == [2]


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


def test_a_rotation_changes_slot_and_epoch(gossip: Gossip) -> None:
    """Two keys are published while packets move; a start in between finds the same ones."""
    key = own_key(gossip)
    key.publish()
    key.begin()
    key.begin()
    both = own_key(gossip)

    assert [(each.epoch, each.slot) for each in both.public] == [(1, 0), (2, 1)]
    assert both.slots == OwnSlots(0, next=1)
    both.retire()
    assert both.is_published
    assert own_key(gossip).slots == OwnSlots(1, retired=0)
    assert [(each.epoch, each.slot) for each in both.public] == [(2, 1)]
    both.forget()
    assert own_key(gossip).slots == OwnSlots(1)
    assert len(gossip.published) == 3


def test_an_adopted_slot_has_a_fresh_key(gossip: Gossip) -> None:
    """A private key is never used in two devices."""
    key = own_key(gossip)
    key.publish()
    before = key.current
    key.adopt()

    assert key.is_published
    assert key.slots == OwnSlots(1)
    assert before is not None
    assert key.current is not None
    assert key.current.private != before.private


def test_a_key_of_unknown_age_is_dated(gossip: Gossip) -> None:
    """An agent without rotation wrote down no time: the age counts from when this is seen."""
    WIREGUARD.put(gossip.state, StoredWireguardKeys(StoredWireguardKey(1, b"k" * 32)))
    key = own_key(gossip)
    key.date()

    assert key.current is not None
    assert key.current.made_s > 0
    assert own_key(gossip).current == key.current
