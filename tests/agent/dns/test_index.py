"""Names are looked up, not looked for, however many there are and however often they change."""

from __future__ import annotations

from typing import Any, cast

from overlay.agent.dns.index import NameIndexes
from overlay.agent.records.directory import PlacedEndpoint
from overlay.core.protocol.records import CustomRecord
from overlay.model import Endpoint, Mac, NodeId, Vni, parse_ip

BLUE, RED, NODE = Vni(1), Vni(2), NodeId(b"a" * 16)
PASS_S = 0.1


class Records:
    """Endpoints that take a tenth of a second to look through."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.passes = 0
        self.names = ["web"]

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    def endpoints(self, vni: Vni) -> list[PlacedEndpoint]:
        """Return one endpoint of each name."""
        self.passes += 1
        self.now_s += PASS_S
        ip, mac = parse_ip("10.1.0.2"), Mac(b"\2" * 6)
        made = (Endpoint(name.encode().ljust(8), vni, name, mac, (ip,)) for name in self.names)
        return [PlacedEndpoint(NODE, endpoint) for endpoint in made]

    def custom_records(self, _vni: Vni) -> list[tuple[NodeId, CustomRecord]]:
        """Return one name."""
        return [(NODE, CustomRecord("Printer", (parse_ip("192.0.2.9"),)))]


def test_many_questions_look_through_the_records_once() -> None:
    """A thousand questions, about names, aliases and addresses, cost one pass."""
    records = Records()
    indexes = NameIndexes(cast("Any", records), records.clock)
    for _ in range(1_000):
        assert "web" in indexes.of(BLUE).by_name
        assert "printer" in indexes.of(BLUE).custom
        assert parse_ip("10.1.0.2") in indexes.of(BLUE).by_ip
    assert records.passes == 1


def test_a_change_is_seen_when_the_records_have_rested() -> None:
    """Of the network that changed; with changes all the time a fifth of the time goes into it."""
    records = Records()
    indexes = NameIndexes(cast("Any", records), records.clock)
    indexes.of(BLUE)
    indexes.of(RED)
    started_s, before = records.now_s, records.passes
    records.names.append("db")

    while records.now_s < started_s + 10:
        indexes.changed(BLUE)
        indexes.of(BLUE)
        indexes.of(RED)
        records.now_s += 0.01

    assert "db" in indexes.of(BLUE).by_name
    assert "db" not in indexes.of(RED).by_name
    assert 15 <= records.passes - before <= 21


def test_an_index_nobody_asks_for_is_dropped() -> None:
    """Networks that are gone leave nothing behind."""
    records = Records()
    indexes = NameIndexes(cast("Any", records), records.clock)
    indexes.of(RED)
    records.now_s += 60
    indexes.of(BLUE)
    assert list(indexes._indexes) == [BLUE]
