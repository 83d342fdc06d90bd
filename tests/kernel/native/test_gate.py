"""The native path and the gate on one interface: each takes its packets, whichever came first."""

from __future__ import annotations

from contextlib import closing

import pytest
from overlay.core.gate.state import GatedInterface, GateState
from overlay.kernel import netns
from overlay.kernel.bpf import syscall, tcx
from overlay.kernel.gate.gate import Gate
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Mac
from tests.kernel.conftest import World
from tests.kernel.native.conftest import NODE, PairMaker

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("native_first", [True, False])
@pytest.mark.parametrize("outer", [4, 6])
def test_members_frames_and_the_gates_packets(
    world: World, make_pair: PairMaker, outer: int, *, native_first: bool
) -> None:
    """Frames still come by the shortcut, and echoes' replies go through the gate and back."""
    one, _ = make_pair(outer)
    if not native_first:
        one.receiver.remove()
    host_fd = world.fd(one.host.name)
    with NetlinkSocket(host_fd) as host:
        link = link_decoder.decode(host.get(link_requests.get_link("eth1"))[0])
    uplink = GatedInterface("eth1", link.index, Mac(link.mac), link.mtu, "outside")
    with netns.inside(host_fd), closing(Gate(NODE)) as gate:
        try:
            plan = GateState(frozenset({uplink}), frozenset({one.host.underlay}))
            gate.write(gate.read(), plan)
            one.receive()
            assert gate.read() == plan
            names = [name[:4] for _, name in tcx.named(link.index, syscall.TCX_INGRESS)]
            assert names == (["ovn_", "ovg_"] if native_first else ["ovg_", "ovn_"])

            before = one.received("native0")
            assert world.pings(one.container, "10.32.0.3", count=10) == 10
            assert one.received("native0") - before >= 10
            target = "192.168.56.12" if outer == 4 else "fd56::12"
            assert world.pings(one.host.name, target, "-e", "20000", count=3) == 3
            shown = world.run(gate.path.name, "ip", "-s", "link", "show", "eth1")
            assert int(shown.split("RX:")[1].split("\n")[1].split()[1]) >= 3
        finally:
            gate.remove()
