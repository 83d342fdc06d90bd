"""The filter of the VXLAN port with the VTEPs of a BGP EVPN fabric."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.underlay_filter import FilterState
from overlay.kernel import netns
from overlay.kernel.nft.underlay_filter import UnderlayTable
from overlay.model import NodeId, Vni, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns

EXPORTED, PRIVATE = 4100, 4200
OWN, MEMBER, LEAF, STRANGER = "10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4"
STATE = FilterState(
    frozenset({parse_ip(MEMBER)}),
    frozenset({Vni(EXPORTED), Vni(PRIVATE)}),
    outside=frozenset({parse_ip(LEAF)}),
    exported=frozenset({Vni(EXPORTED)}),
)


def test_an_outside_vtep_sends_on_exported_networks_alone(world: World) -> None:
    """A leaf of the fabric is no member: it reaches no other network of the cluster."""
    host, peer = world.namespace("host"), world.namespace("peer")
    world.run(host, "ip", "link", "add", "eth1", "type", "veth", "peer", "eth1", "netns", peer)
    for where, texts in ((host, [OWN]), (peer, [MEMBER, LEAF, STRANGER])):
        for text in texts:
            world.run(where, "ip", "address", "add", f"{text}/24", "dev", "eth1")
        world.run(where, "ip", "link", "set", "eth1", "up")
    world.wait_until(lambda: world.pings(peer, OWN) == 1, "the underlay")
    with netns.inside(world.fd(host)):
        guard = UnderlayTable(NodeId(b"A" * 16), 4789, 7948)
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind((OWN, 4789))
    receiver.settimeout(10)
    guard.write(None, STATE)
    assert guard.read() == STATE

    sent = [(source, vni) for source in (STRANGER, LEAF, MEMBER) for vni in (EXPORTED, PRIVATE)]
    for source, vni in sent:
        with netns.inside(world.fd(peer)):
            out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with out:
            out.bind((source, 0))
            out.sendto(b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0", (OWN, 4789))
    heard = []
    for _ in range(3):
        data, (source, _) = receiver.recvfrom(100)
        heard.append((source, int.from_bytes(data[4:7], "big")))

    assert heard == [(LEAF, EXPORTED), (MEMBER, EXPORTED), (MEMBER, PRIVATE)]
    assert guard.refused_counts() == (3, 0)
    guard.write(STATE, FilterState(STATE.members, STATE.vnis))
    assert guard.read() == FilterState(STATE.members, STATE.vnis)
    receiver.close()
    guard.close()
