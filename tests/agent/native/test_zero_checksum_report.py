"""A host says by a record whether its VXLAN port accepts IPv6 packets without a UDP checksum."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.gossip.context import NodeContext
from overlay.agent.native.zero_checksum_report import ZeroChecksumReport
from overlay.agent.process.event_log import EventLog
from overlay.core.declared.kinds import ZERO_CHECKSUM_KIND
from overlay.core.native.zero_checksum import object_name
from overlay.model import NodeId, Vni, parse_ip
from overlay.signals import Signal

OWN = NodeId(b"o" * 16)


class Host:
    """A host whose VXLAN devices are what a test says, by network."""

    def __init__(self, path: Path) -> None:
        self.devices: dict[int, dict[str, bool]] = {}
        self.said: dict[tuple[int, str], bytes] = {}
        self.gossip = SimpleNamespace(
            node_id=OWN,
            may_write=True,
            card=SimpleNamespace(address=parse_ip("fd56::11"), software="0.4.0"),
        )
        directory = SimpleNamespace(
            networks=lambda: [SimpleNamespace(vni=Vni(number)) for number in (1, 2, 3)]
        )
        self.reconciled = Signal[[Vni]]()
        reconciler = SimpleNamespace(sandbox_changed=self.reconciled, runtime=self._runtime)
        context = NodeContext(
            cast("Any", self.gossip), cast("Any", directory), cast("Any", None), EventLog(path)
        )
        self.report = ZeroChecksumReport(context, cast("Any", self), cast("Any", reconciler))

    def put(self, kind: int, name: str, body: bytes) -> None:
        """Write a declared object."""
        self.said[kind, name] = body

    def remove(self, kind: int, name: str) -> None:
        """Remove a declared object."""
        self.said.pop((kind, name), None)

    def _runtime(self, vni: int) -> SimpleNamespace | None:
        if vni not in self.devices:
            return None
        return SimpleNamespace(passes=1, sandbox=SimpleNamespace(zero_checksums=self.devices[vni]))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a host on an IPv6 underlay without a sandbox."""
    return Host(tmp_path)


SAID = {(ZERO_CHECKSUM_KIND, object_name(OWN)): b"0.4.0"}


async def test_it_is_said_when_all_devices_accept_it(host: Host) -> None:
    """Not before there is one; when the last one goes, nothing changes."""
    await host.report.attempt()
    assert host.said == {}
    host.devices = {1: {"vxlan0": True, "vxlan1": True}, 3: {"vxlan0": True}}
    await host.report.attempt()
    assert host.said == SAID
    host.devices = {}
    await host.report.attempt()
    assert host.said == SAID


async def test_one_device_that_refuses_is_enough(host: Host) -> None:
    """Members send with checksums again."""
    host.devices = {1: {"vxlan0": True}}
    await host.report.attempt()
    host.devices[2] = {"vxlan0": True, "vxlan1": False}
    await host.report.attempt()
    assert host.said == {}


async def test_nothing_is_said_over_ipv4(host: Host) -> None:
    """There nobody asks; what was said before the underlay changed is taken back."""
    host.devices = {1: {"vxlan0": True}}
    await host.report.attempt()
    host.gossip.card.address = parse_ip("192.0.2.1")
    await host.report.attempt()
    assert host.said == {}


async def test_a_node_that_may_not_write_waits(host: Host) -> None:
    """The next pass writes it."""
    host.devices, host.gossip.may_write = {1: {"vxlan0": True}}, False
    await host.report.attempt()
    assert host.said == {}
    host.gossip.may_write = True
    await host.report.attempt()
    assert host.said == SAID
