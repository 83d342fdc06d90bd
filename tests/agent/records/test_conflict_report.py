"""Conflicts in `overlayd status`, and the events of their beginning and end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.records.conflict_report import ConflictReport
from overlay.model import (
    Endpoint,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
    mac_text,
    parse_ip,
)

OTHER = NodeId(b"x" * 16)
VNI = Vni(700)
BLUE = Network(VNI, "blue", (Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1")),), OTHER)
GATEWAY_MAC = gateway_mac(VNI, 0)


def endpoint(text: str, mac: Mac | None = None) -> Endpoint:
    """Return an endpoint with that address."""
    ip = parse_ip(text)
    return Endpoint(ip.rjust(8), VNI, f"c{ip[-1]}", mac or mac_for(VNI, ip), (ip,))


class Records:
    """The records of another node, and the report about them."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []
        self.writers = [OTHER]
        self.reads: list[int] = []  # the turns of the event loop before each
        self.turns = 0
        self.surplus: list[tuple[NodeId, str]] = []
        self.events: list[tuple[str, str]] = []
        directory = SimpleNamespace(
            view=SimpleNamespace(network_claims=list),
            networks=lambda: [BLUE],
            endpoint_writers=lambda _vni: self.writers,
            endpoints_of=self.read,
            node_name=lambda _node_id: "vm4",
            surplus=lambda: iter(self.surplus),
        )
        log = SimpleNamespace(record=lambda kind, text, **_: self.events.append((kind, text)))
        self.report = ConflictReport(cast("Any", directory), cast("Any", None), cast("Any", log))

    def read(self, _origin: NodeId, _vni: Vni) -> list[Endpoint]:
        """Return the endpoints, whoever has them."""
        self.reads.append(self.turns)
        return self.endpoints

    async def report_beside_others(self) -> None:
        """Report while something else wants the event loop."""

        async def other() -> None:
            while True:
                self.turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(other())
        await self.report.reconcile()
        others.cancel()

    def texts(self) -> list[str]:
        """Return the health lines after a pass."""
        asyncio.run(self.report.reconcile())
        return [fault.text for fault in self.report.faults()]


def test_a_claim_on_the_gateway_is_reported_while_it_lasts() -> None:
    """By MAC or address; each begins and ends with one event."""
    records = Records()
    assert records.texts() == []
    records.endpoints = [endpoint("10.0.0.9", GATEWAY_MAC), endpoint("10.0.0.1")]
    told = [
        f"{claim} on network blue: the claim is ignored"
        for claim in (
            "c1 (10.0.0.1) on vm4 claims the gateway's address 10.0.0.1",
            f"c9 (10.0.0.9) on vm4 claims the gateway's MAC {mac_text(GATEWAY_MAC)}",
        )
    ]

    assert records.texts() == told
    assert records.texts() == told
    assert all("overlayd forget --ban vm4" in each.hint for each in records.report.faults())
    records.endpoints = [endpoint("10.0.0.8")]
    assert records.texts() == []
    assert records.events == [
        *(("conflict", text) for text in told),
        *(("conflict-over", f"resolved: {text}") for text in told),
    ]


def test_a_log_beyond_its_bound_is_reported_once() -> None:
    """One line for each kind of record, however many logs and changes."""
    records = Records()
    records.surplus = [(OTHER, "endpoint"), (OTHER, "endpoint")]
    told = ["vm4 has written more endpoint records than count: the surplus is ignored"]

    assert records.texts() == told
    assert records.texts() == told
    assert records.events == [("conflict", told[0])]


def test_others_have_their_turns_while_records_are_read() -> None:
    """After each member's, of which 4,160 count: together they are any number."""
    records = Records()
    records.writers = [NodeId(bytes([number]) * 16) for number in range(13)]
    asyncio.run(records.report_beside_others())
    assert records.reads == [0, *range(1, 13)]
