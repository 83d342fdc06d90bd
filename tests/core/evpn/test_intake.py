"""Which rows of the fabric are taken."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from overlay import limits
from overlay.core.evpn.intake import take
from overlay.core.evpn.settings import EvpnSettings
from overlay.core.fabric import FabricFlood, FabricMac, FabricNeighbor, FabricRows
from overlay.model import Ip, Mac, Vni, parse_ip

VNI, SECOND, OTHER = Vni(4100), Vni(4101), Vni(5000)
NETWORKS = {VNI: VNI, SECOND: VNI, OTHER: OTHER}
LEAF, MEMBER, FORGED = (parse_ip(text) for text in ("10.9.0.2", "10.9.0.3", "172.31.0.1"))
SETTINGS = EvpnSettings(65000, (parse_ip("10.9.0.1"),), (IPv4Network("10.9.0.0/16"),))


def mac(number: int) -> Mac:
    """Return a MAC by number."""
    return Mac(number.to_bytes(6, "big"))


def rows(*places: tuple[Vni, int, Ip]) -> FabricRows:
    """Return a table with a MAC, its address and its VTEP's flood row for each place."""
    return FabricRows(
        frozenset(FabricMac(vni, mac(number), vtep) for vni, number, vtep in places),
        frozenset(
            FabricNeighbor(vni, Ip(number.to_bytes(4, "big")), mac(number))
            for vni, number, _ in places
        ),
        frozenset(FabricFlood(vni, vtep) for vni, _, vtep in places),
    )


def test_outside_vteps_are_taken_by_network() -> None:
    """The segments of one network are one table."""
    given = rows((VNI, 1, LEAF), (SECOND, 2, LEAF), (OTHER, 3, LEAF))

    found = take(given, SETTINGS, frozenset({MEMBER}), NETWORKS)

    assert found.rows(VNI) == rows((VNI, 1, LEAF), (SECOND, 2, LEAF))
    assert found.rows(OTHER) == rows((OTHER, 3, LEAF))
    assert found.vteps == {LEAF}


def test_a_members_rows_are_ignored() -> None:
    """Members are programmed from their signed records; this is no refusal."""
    found = take(rows((VNI, 1, MEMBER)), SETTINGS, frozenset({MEMBER}), NETWORKS)

    assert len(found.rows(VNI)) == 0
    assert (found.outside, found.over_limit, found.vteps) == ({}, 0, frozenset())


def test_a_next_hop_outside_the_prefix_is_counted() -> None:
    """A forged next hop gets no row, and is named."""
    found = take(rows((VNI, 1, FORGED), (VNI, 2, LEAF)), SETTINGS, frozenset(), NETWORKS)

    assert found.rows(VNI) == rows((VNI, 2, LEAF))
    assert found.outside == {FORGED: 2}
    assert found.vteps == {LEAF}


def test_an_ipv6_vtep_is_outside_of_every_prefix() -> None:
    """The prefixes are of IPv4, as are all VTEPs."""
    found = take(rows((VNI, 1, parse_ip("fd00::1"))), SETTINGS, frozenset(), NETWORKS)

    assert len(found.rows(VNI)) == 0


def test_an_address_without_its_mac_is_not_answered_for() -> None:
    """A neighbor whose MAC has no VTEP would be a promise that nobody keeps."""
    alone = FabricRows(neighbors=rows((VNI, 1, LEAF)).neighbors)

    assert len(take(alone, SETTINGS, frozenset(), NETWORKS).rows(VNI)) == 0


def test_a_network_has_a_bounded_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million routes fill the table of their network, and nothing else."""
    monkeypatch.setattr(limits, "EVPN_ROWS_PER_NETWORK_MAX", 10)
    monkeypatch.setattr(limits, "EVPN_ROWS_MAX", 15)
    given = rows(*((VNI, number, LEAF) for number in range(20)), (OTHER, 99, LEAF))

    found = take(given, SETTINGS, frozenset(), NETWORKS)

    assert len(found.rows(VNI).macs) == 10
    assert found.over_limit == 20  # ten MACs, and the addresses of those that are taken
    assert found.rows(OTHER) == rows((OTHER, 99, LEAF))
    assert found == take(given, SETTINGS, frozenset(), NETWORKS)


def test_all_networks_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many networks share the bound of the host."""
    monkeypatch.setattr(limits, "EVPN_ROWS_MAX", 4)
    given = rows((VNI, 1, LEAF), (VNI, 2, LEAF), (OTHER, 3, LEAF))

    found = take(given, SETTINGS, frozenset(), NETWORKS)

    assert len(found.rows(VNI).macs) + len(found.rows(OTHER).macs) == 2


def test_broadcasts_go_to_a_bounded_number_of_vteps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each VTEP of a segment gets a copy of every flooded frame."""
    monkeypatch.setattr(limits, "EVPN_VTEPS_PER_NETWORK_MAX", 1)
    floods = frozenset(FabricFlood(VNI, parse_ip(f"10.9.1.{host}")) for host in range(1, 4))

    found = take(FabricRows(floods=floods), SETTINGS, frozenset(), NETWORKS)

    assert found.rows(VNI).floods == {FabricFlood(VNI, parse_ip("10.9.1.1"))}
    assert found.over_limit == 2
