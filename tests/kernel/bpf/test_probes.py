"""Probes of the data path while the fast path is on."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest
from overlay.agent.paths.probe_sockets import ProbeSender, bound_socket
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.state import TargetRow
from overlay.kernel import netns
from overlay.kernel.bpf import syscall, tc_filters
from overlay.kernel.bpf.assembler import R0, Assembler
from overlay.kernel.netlink.link_lookup import find_link
from overlay.model import Network, NodeId, Subnet, mac_for, parse_ip
from overlay.wire.codec import path_probe
from tests.kernel.bpf.test_fast_path import THREE, Fast, cluster  # noqa: F401
from tests.kernel.conftest import VNI

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
OWNER = NodeId(b"o" * 16)
_DROP = 2  # TC_ACT_SHOT (linux/pkt_cls.h)
PROBED = Network(VNI, "blue", (Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1")),), OWNER)


def probe_arrives(one: Host, two: Host) -> bool:
    """Send a data-path probe between two hosts as their agents do; return whether it arrives."""
    packet = path_probe.encode_path_probe(PROBED, OWNER, OWNER, b"k" * 16, 1, 0)
    with bound_socket(two.sandbox, PROBED) as receiving, netns.inside(one.world.fd(one.name)):
        sender = ProbeSender()
        sender.send(one.underlay, two.underlay, 4789, packet)
        sender.close()
        return select.select([receiving], [], [], 1.0)[0] != []


def test_probes_meet_the_programs_that_frames_meet(
    cluster: tuple[Fast, Fast, str, str, str],  # noqa: F811 - the fixture
    world: World,
) -> None:
    """The VTEP's hook judges both; only the row of one container does not concern a probe.

    That row is compared with the plan in each pass, and repaired.
    """
    one, two, first, _, _ = cluster
    assert world.pings(first, "10.32.0.3") == 1
    assert probe_arrives(one.host, two.host)
    vtep = find_link(two.host.sandbox.socket, "vxlan0")
    drop = Assembler()
    drop.set(R0, _DROP)
    drop.exit()
    program = syscall.load(drop.code(), "drop")
    two.host.sandbox.socket.request(tc_filters.put_filter(vtep, program, "drop"))
    os.close(program)
    assert not probe_arrives(one.host, two.host)
    assert world.pings(first, "10.32.0.3") == 0
    assert two.converge() == []
    assert probe_arrives(one.host, two.host)
    assert world.pings(first, "10.32.0.3") == 1

    row = TargetRow(mac_for(VNI, THREE), 0, "p0")
    assert two.host.sandbox.apply([DeleteRow(row)]) == []
    assert len(two.differences()) == 1
    assert probe_arrives(one.host, two.host)
    assert two.converge() == []
    assert world.pings(first, "10.32.0.3") == 1
