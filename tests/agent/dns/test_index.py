"""The name index bounds the cost of DNS queries, with many records and with many changes."""

from __future__ import annotations

from typing import Any, cast

from overlay.agent.dns.index import NameIndexes
from overlay.agent.records.directory import PlacedEndpoint
from overlay.core.protocol.records import CustomRecord
from overlay.core.services.derivation import PlacedService
from overlay.model import Endpoint, Mac, NodeId, Vni, parse_ip

BLUE, RED, NODE = Vni(1), Vni(2), NodeId(b"a" * 16)
SCAN_S = 0.1


class Records:
    """Endpoints that take a tenth of a second to scan."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.scans = 0
        self.names = ["web"]

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    def endpoints(self, vni: Vni) -> list[PlacedEndpoint]:
        """Return one endpoint of each name."""
        self.scans += 1
        self.now_s += SCAN_S
        ip, mac = parse_ip("10.1.0.2"), Mac(b"\2" * 6)
        made = (Endpoint(name.encode().ljust(8), vni, name, mac, (ip,)) for name in self.names)
        return [PlacedEndpoint(NODE, endpoint) for endpoint in made]

    def services(self, _vni: Vni) -> list[PlacedService]:
        """Return no service."""
        return []

    def custom_records(self, _vni: Vni) -> list[tuple[NodeId, CustomRecord]]:
        """Return one record."""
        return [(NODE, CustomRecord("Printer", (parse_ip("192.0.2.9"),)))]


def test_many_queries_scan_the_records_once() -> None:
    """A thousand queries for names, custom records and addresses cost a single scan."""
    records = Records()
    indexes = NameIndexes(cast("Any", records), records.clock)
    for _ in range(1_000):
        assert "web" in indexes.of(BLUE).by_name
        assert "printer" in indexes.of(BLUE).custom
        assert parse_ip("10.1.0.2") in indexes.of(BLUE).by_ip
    assert records.scans == 1


def test_constant_changes_use_a_fifth_of_the_time() -> None:
    """Only the changed network is indexed again, and its index is rebuilt with pauses."""
    records = Records()
    indexes = NameIndexes(cast("Any", records), records.clock)
    indexes.of(BLUE)
    indexes.of(RED)
    started_s, before = records.now_s, records.scans
    records.names.append("db")

    while records.now_s < started_s + 10:
        indexes.mark_stale(BLUE)
        indexes.of(BLUE)
        indexes.of(RED)
        records.now_s += 0.01

    assert "db" in indexes.of(BLUE).by_name
    assert "db" not in indexes.of(RED).by_name
    assert 15 <= records.scans - before <= 21


def test_an_unused_index_is_dropped() -> None:
    """No index is kept for a network that is no longer queried, such as a removed one."""
    records = Records()
    indexes = NameIndexes(cast("Any", records), records.clock)
    indexes.of(RED)
    records.now_s += 60
    indexes.of(BLUE)
    assert list(indexes._indexes) == [BLUE]
