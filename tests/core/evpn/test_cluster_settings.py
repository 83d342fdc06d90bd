"""The cluster's settings of BGP EVPN in one record, and a host's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.declared import bodies
from overlay.core.declared.kinds import EVPN_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.evpn.cluster_settings import (
    EVPN_OBJECT,
    Chosen,
    ClusterEvpn,
    HostChoice,
    choose,
    cluster_evpn,
)
from overlay.core.evpn.settings import parse_settings
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.records import CLUSTER_SCOPE, DeclaredObject
from overlay.model import Card, Ip, node_id_of
from overlay.sim.environment.notary import FakeSigner

KEY = b"\1" * 32
SETTINGS = parse_settings(65000, ["10.9.0.1", "10.9.0.9"], ["10.9.0.0/16"], "", 1)
OPEN, CLOSED = ClusterEvpn(SETTINGS, False), ClusterEvpn(SETTINGS, True)
OWN = parse_settings(65001, ["10.8.0.1"], ["10.8.0.0/16"], "secret")


def read(body: bytes) -> ClusterEvpn | None:
    """Return what a member reads of a record with this body."""
    store, signer = Store(node_id_of(KEY)), FakeSigner(KEY)
    address = Ip(b"\x0a\0\0\1")
    store.accept_card(
        Card(store.self_id, "m", b"k" * 32, b"e" * 32, address, 7948, 1, 1500, "test")
    )
    value = DeclaredObject(EVPN_KIND, EVPN_OBJECT, 1, body)
    for segment in LogWriter(store, signer).write(CLUSTER_SCOPE, [value], []):
        store.accept(segment)
    found = cluster_evpn(DeclaredObjects(store, signer))
    assert found is None or found[0] == store.self_id
    return None if found is None else found[1]


@pytest.mark.parametrize("record", [OPEN, CLOSED])
def test_all_members_read_what_one_wrote(record: ClusterEvpn) -> None:
    """With every setting, and no password."""
    assert read(record.body()) == record
    assert b"secret" not in ClusterEvpn(OWN, True).body()


@pytest.mark.parametrize(
    "fields",
    [
        [65000],
        [0, ["10.9.0.1"], ["10.9.0.0/16"], 0, False],
        [65000, ["host name"], ["10.9.0.0/16"], 0, False],
        [65000, ["10.9.0.1"] * 9, ["10.9.0.0/16"], 0, False],
        [65000, ["10.9.0.1"], ["10.9.0.0/16"], 255, False],
        [65000, ["10.9.0.1"], ["10.9.0.0/16"], 0, "no"],
    ],
)
def test_a_record_that_no_agent_writes_is_none(fields: list[object]) -> None:
    """Nothing of it reaches FRR."""
    assert read(bodies.encode(fields, "test")) is None


def test_a_removed_record_is_none() -> None:
    """Hosts that follow it disable EVPN."""
    assert read(b"") is None


def test_own_settings_have_precedence() -> None:
    """Also over a cluster whose settings need a password."""
    assert choose(HostChoice(own=OWN), CLOSED) == Chosen(OWN, "host")
    assert choose(HostChoice(own=OWN), None) == Chosen(OWN, "host")


def test_a_host_follows_the_cluster_or_stays_out() -> None:
    """With the password that it has; without one that is needed it cannot."""
    secret = replace(SETTINGS, password="secret")

    assert choose(HostChoice(), OPEN) == Chosen(SETTINGS, "cluster")
    assert choose(HostChoice(password="secret"), OPEN) == Chosen(SETTINGS, "cluster")
    assert choose(HostChoice(password="secret"), CLOSED) == Chosen(secret, "cluster")
    assert choose(HostChoice(), CLOSED) == Chosen(lacks_password=True)
    assert choose(HostChoice(is_out=True, password="secret"), CLOSED) == Chosen()
    assert choose(HostChoice(), None) == Chosen()
