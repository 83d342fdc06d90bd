"""The read model of one node's records."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from overlay.core.dataplane.network_drivers import OVERLAY, labels_of
from overlay.core.dataplane.state import FdbRow, FloodRow, NeighborRow
from overlay.core.encryption.inner_address import inner_address, inner_prefix
from overlay.core.encryption.key_record import WireguardKey, key_record
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.membership.machine import Membership
from overlay.core.mtu import encrypted_mtu, network_mtu
from overlay.core.protocol.outbox import Outbox
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Participation,
    RemovedNetwork,
    Scope,
    Value,
    key_of,
)
from overlay.core.protocol.settings import ProtocolSettings
from overlay.core.services.view import ServiceSource
from overlay.core.view import View
from overlay.model import (
    Card,
    Endpoint,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    node_id_of,
    parse_ip,
)
from overlay.sim.environment.codec import SharingCodec
from overlay.sim.environment.notary import FakeSigner

KEYS = {"self": b"s" * 32, "owner": b"o" * 32, "thief": b"t" * 32}
IDS = {name: node_id_of(key) for name, key in KEYS.items()}
VTEPS = {name: Ip(bytes([192, 168, 56, 11 + at])) for at, name in enumerate(KEYS)}
SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
SUBNET6 = Subnet(parse_ip("fd01::"), 64, parse_ip("fd01::1"))
BLUE = Network(Vni(9), "blue", (SUBNET,), IDS["owner"])
IP = parse_ip("10.1.0.7")


class Seat:
    """One node's store, filled by others."""

    def __init__(self, inner_prefix: bytes = b"", services: ServiceSource | None = None) -> None:
        self.store = Store(IDS["self"])
        membership = self.membership = Membership(
            IDS["self"], 1 << 20, ProtocolSettings(), random.Random(1), Outbox(SharingCodec()),
            root_of=lambda _: 0, now=0.0,
        )  # fmt: skip
        for name, key in KEYS.items():
            card = Card(IDS[name], name, key, key, VTEPS[name], 7948, 1, 1500, "test")
            self.store.accept_card(card)
            membership.add(IDS[name], 0.0, 1 << 20)
        owners = AddressSpace(self.store, IDS["self"])
        self.view = View(self.store, membership, IDS["self"], owners, None, inner_prefix, services)

    def tell(self, name: str, scope: Scope, *values: Value) -> None:
        """Accept what a node writes."""
        for segment in LogWriter(Store(IDS[name]), FakeSigner(KEYS[name])).write(scope, values):
            self.store.accept(segment)

    def delete(self, name: str, scope: Scope, *values: Value) -> None:
        """Accept that a node deletes what it has written."""
        own = Store(IDS[name])
        own.accept_card(self.store.cards[own.self_id])
        for segment in self.store.segments_beyond(own.self_id, scope, 0):
            own.accept(segment)
        keys = [key_of(value) for value in values]
        for segment in LogWriter(own, FakeSigner(KEYS[name])).write(scope, (), keys):
            self.store.accept(segment)

    def way_to(self, ip: Ip) -> set[Ip]:
        """Return the VTEPs to which frames for an address are sent."""
        rows = self.view.desired(BLUE, VTEPS["self"], 4789, 1450, ()).rows
        macs = {row.mac for row in rows if isinstance(row, NeighborRow) and row.ip == ip}
        return {row.vtep for row in rows if isinstance(row, FdbRow) and row.mac in macs}


def endpoint(endpoint_id: bytes, ip: Ip = IP) -> Endpoint:
    """Return an endpoint with an address and the MAC that goes with it."""
    return Endpoint(endpoint_id, BLUE.vni, "web", mac_for(BLUE.vni, ip), (ip,))


@pytest.mark.parametrize("thief_id", [bytes(8), b"\xff" * 8])
def test_an_address_belongs_to_its_owner_whoever_claims_it(thief_id: bytes) -> None:
    """A false claim to an address gets no traffic, whatever its endpoint id."""
    seat = Seat()
    part = Participation(BLUE.vni, forwards=True)
    seat.tell("owner", CLUSTER_SCOPE, BLUE, part)
    seat.tell("self", CLUSTER_SCOPE, part)
    seat.tell("thief", CLUSTER_SCOPE, part)
    seat.tell("thief", Scope(BLUE.vni), endpoint(thief_id))
    seat.tell("owner", Scope(BLUE.vni), endpoint(b"endpoint"))

    assert seat.way_to(IP) == {VTEPS["owner"]}


def test_a_forgotten_node_is_on_no_network() -> None:
    """Its records stay, so that its addresses can be reclaimed, but it has no sandbox to reach."""
    seat = Seat()
    for name in ("self", "owner", "thief"):
        seat.tell(name, CLUSTER_SCOPE, Participation(BLUE.vni, forwards=True))
    assert seat.view.participants(BLUE.vni, forwarding=True) == sorted(IDS.values())

    seat.membership.remove(IDS["thief"], 1.0)

    there = sorted([IDS["self"], IDS["owner"]])
    assert seat.view.participants(BLUE.vni, forwarding=True) == there
    assert seat.view.participants(BLUE.vni, forwarding=False) == sorted(IDS.values())


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1"])
def test_nothing_is_sent_to_a_card_with_a_loopback_address(address: str) -> None:
    """The kernel would hand broadcasts back to their senders, past the filter of this host."""
    seat, part = Seat(), Participation(BLUE.vni, forwards=True)
    seat.tell("owner", CLUSTER_SCOPE, BLUE, part)
    seat.tell("self", CLUSTER_SCOPE, part)
    seat.tell("thief", CLUSTER_SCOPE, part)
    at = VTEPS["owner"], VTEPS["thief"]

    def flooded_to() -> set[Ip]:
        rows = seat.view.desired(BLUE, VTEPS["self"], 4789, 1450, ()).rows
        return {each.vtep for each in rows if isinstance(each, FloodRow)}

    assert seat.view.vteps() == flooded_to() == {*at}

    card = seat.store.card(IDS["thief"])
    assert card is not None
    seat.store.accept_card(replace(card, address=parse_ip(address), epoch=2))

    assert seat.view.vteps() == flooded_to() == {at[0]}
    seat.view.excluded_vteps = frozenset({at[0]})  # by the routes of this host
    assert seat.view.vteps() == flooded_to() == set()


def test_an_endpoint_loses_only_to_another_ones_claim() -> None:
    """Not while it is alone, nor on its own address: the kernel forwards to it then."""
    seat, scope = Seat(), Scope(BLUE.vni)
    part = Participation(BLUE.vni, forwards=True)
    seat.tell("owner", CLUSTER_SCOPE, BLUE, part)
    for name in ("self", "thief"):
        seat.tell(name, CLUSTER_SCOPE, part)
    claim, rightful = endpoint(bytes(8)), endpoint(b"endpoint")
    seat.tell("thief", scope, claim)
    claims = [(IDS["thief"], claim), (IDS["owner"], rightful)]
    assert seat.view.losing_origins(scope, claims[:1]) == set()

    seat.tell("owner", scope, rightful)
    assert seat.view.losing_origins(scope, claims[:1]) == {IDS["thief"]}
    assert seat.view.losing_origins(scope, claims) == {IDS["thief"]}
    assert seat.view.losing_origins(scope, claims[1:]) == set()
    assert seat.view.losing_origins(Scope(8), claims) == set()


def test_however_many_claims_all_records_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member with very many endpoints at addresses of others holds up no pass."""
    seat, scope = Seat(), Scope(BLUE.vni)
    part = Participation(BLUE.vni, forwards=True)
    seat.tell("owner", CLUSTER_SCOPE, BLUE, part)
    seat.tell("owner", scope, endpoint(b"endpoint"))
    read: list[str] = []
    values = seat.store.values

    def noting(scope: Scope, kind: str) -> Iterator[tuple[NodeId, Value]]:
        read.append(kind)
        return values(scope, kind)

    monkeypatch.setattr(seat.store, "values", noting)
    claims = [(IDS["thief"], endpoint(bytes([number]) * 8)) for number in range(100)]

    assert seat.view.losing_origins(scope, claims) == {IDS["thief"]}
    assert read.count("endpoint") == 1


@pytest.mark.parametrize(
    ("name", "ip", "is_own"),
    [
        ("owner", "10.1.0.7", True),
        ("thief", "10.1.0.7", False),
        ("owner", "10.1.0.1", False),  # the gateway's
        ("owner", "10.1.0.9", False),  # a router's
        ("owner", "192.0.2.7", False),  # of another network, or the Internet's
    ],
)
def test_only_an_owner_says_whose_address_it_is(name: str, ip: str, *, is_own: bool) -> None:
    """A capture by address uses the owner by the grants, not a node that claims it."""
    seat = Seat()
    auxiliary = replace(SUBNET, auxiliary=(("router", parse_ip("10.1.0.9")),))
    network = replace(BLUE, subnets=(auxiliary,))
    seat.tell("owner", CLUSTER_SCOPE, network)
    claim = endpoint(b"endpoint", parse_ip(ip))
    assert seat.view.owns_addresses(network, IDS[name], claim) is is_own


def test_networks_are_collected_only_when_records_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New and removed networks, and a forgotten creator's, show at once.

    A thousand lookups in between read the records once, and each caller gets a copy of its own.
    """
    seat = Seat()
    looks: list[None] = []
    claims = seat.view.network_claims

    def counted() -> list[tuple[NodeId, Network]]:
        looks.append(None)
        return claims()

    monkeypatch.setattr(seat.view, "network_claims", counted)
    assert seat.view.networks() == {}
    seat.tell("owner", CLUSTER_SCOPE, BLUE)
    for _ in range(1_000):
        seat.view.networks().clear()
    assert seat.view.networks() == {BLUE.vni: BLUE}
    assert len(looks) == 2

    removal = RemovedNetwork(BLUE.vni, IDS["owner"])
    seat.tell("self", CLUSTER_SCOPE, removal)
    assert seat.view.networks() == {}
    seat.delete("self", CLUSTER_SCOPE, removal)
    assert seat.view.networks() == {BLUE.vni: BLUE}
    seat.delete("owner", CLUSTER_SCOPE, BLUE)
    assert seat.view.networks() == {}


@pytest.mark.parametrize(
    ("subnets", "local", "mtu", "found"),
    [
        ((SUBNET,), "192.168.56.11", 1230, 1230),
        ((SUBNET, SUBNET6), "192.168.56.11", 1230, 1280),
        ((SUBNET, SUBNET6), "192.168.56.11", 1450, 1450),
        ((SUBNET, SUBNET6), "fd56::11", 1210, 1210),
    ],
)
def test_ipv6_keeps_the_mtu_that_it_needs(
    subnets: tuple[Subnet, ...], local: str, mtu: int, found: int
) -> None:
    """If the underlay carries larger packets in fragments, which an IPv6 one does not."""
    network = Network(Vni(9), "blue", subnets, IDS["owner"])

    assert network_mtu(network, mtu, parse_ip(local)) == found


def test_encrypted_networks_use_inner_addresses() -> None:
    """Rows lead to the inner address of a node with a key, and to no other node."""
    seat = Seat(inner_prefix(b"\x01\x02\x03\x04"))
    vault = replace(BLUE, labels=labels_of(OVERLAY, "", encrypted=True))
    for name, number in (("owner", 1), ("thief", 2)):
        ip = Ip(IP[:3] + bytes([number]))
        endpoint = Endpoint(bytes([number]) * 8, BLUE.vni, name, mac_for(BLUE.vni, ip), (ip,))
        seat.tell(name, Scope(BLUE.vni), endpoint)
    seat.tell(
        "owner",
        CLUSTER_SCOPE,
        vault,
        Participation(BLUE.vni, forwards=True),
        key_record(WireguardKey(1, b"k" * 32)),
    )
    seat.tell("thief", CLUSTER_SCOPE, Participation(BLUE.vni, forwards=True))
    inner = inner_address(inner_prefix(b"\x01\x02\x03\x04"), IDS["owner"])

    given = seat.view.collect_input(vault, inner, 4789, 1370, ())

    assert [each.vtep for each in given.remotes] == [inner]
    assert given.flood == (inner,)
    assert seat.view.encrypted_vnis() == {BLUE.vni}
    assert seat.view.tunnel_end(BLUE, IDS["thief"]) == VTEPS["thief"]


def test_without_a_prefix_encrypted_rows_lead_nowhere() -> None:
    """A view that does not know the tunnels has no rows rather than rows in clear."""
    seat = Seat()
    vault = replace(BLUE, labels=labels_of(OVERLAY, "", encrypted=True))
    seat.tell("owner", CLUSTER_SCOPE, key_record(WireguardKey(1, b"k" * 32)))

    assert seat.view.tunnel_end(vault, IDS["owner"]) is None


def test_the_mtu_of_an_encrypted_network() -> None:
    """WireGuard and VXLAN over IPv6 take their part; IPv6 inside keeps what it needs."""
    dual = replace(BLUE, subnets=(SUBNET, SUBNET6))

    assert encrypted_mtu(BLUE, 1500, VTEPS["self"]) == 1370
    assert encrypted_mtu(BLUE, 1500, parse_ip("2001:db8::1")) == 1350
    assert encrypted_mtu(BLUE, 1280, VTEPS["self"]) == 1150
    assert encrypted_mtu(dual, 1280, VTEPS["self"]) == 1280
