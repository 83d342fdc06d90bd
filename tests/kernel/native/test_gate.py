"""The native path and the gate on one interface: each takes its packets, whichever came first."""

from __future__ import annotations

from contextlib import closing

import pytest
from overlay.core.gate.state import GatedInterface, GateState
from overlay.kernel import netns
from overlay.kernel.bpf.hooks import tcx
from overlay.kernel.bpf.hooks.owner import INGRESS
from overlay.kernel.gate.gate import Gate
from overlay.kernel.native.support import can_mix_versions
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Mac
from tests.kernel.conftest import World
from tests.kernel.native.conftest import NODE, Native, PairMaker

pytestmark = [pytest.mark.netns, pytest.mark.kernels]
KINDS = [
    pytest.param(True, marks=pytest.mark.skipif(not tcx.has_tcx(), reason="needs Linux 6.6")),
    False,
]


def uplink_of(native: Native) -> GatedInterface:
    """Return the underlay's interface, as one by which containers leave."""
    with NetlinkSocket(native.host.world.fd(native.host.name)) as host:
        link = link_decoder.decode(host.get(link_requests.get_link("eth1"))[0])
    return GatedInterface("eth1", link.index, Mac(link.mac), link.mtu, "outside")


@pytest.mark.parametrize("has_tcx", KINDS, ids=["tcx", "tc"])
@pytest.mark.parametrize("native_first", [True, False])
@pytest.mark.parametrize("outer", [4, 6])
def test_members_frames_and_the_gates_packets(
    world: World,
    make_pair: PairMaker,
    monkeypatch: pytest.MonkeyPatch,
    outer: int,
    *,
    native_first: bool,
    has_tcx: bool,
) -> None:
    """Frames still come by the shortcut, and echoes' replies go through the gate and back."""
    monkeypatch.setattr(tcx, "has_tcx", lambda: has_tcx)
    one, _ = make_pair(outer)
    if not native_first:
        one.receiver.remove()
    host_fd, uplink = world.fd(one.host.name), uplink_of(one)
    with netns.inside(host_fd), closing(Gate(NODE)) as gate:
        try:
            plan = GateState(frozenset({uplink}), frozenset({one.host.underlay}))
            gate.write(gate.read(), plan)
            one.receive()
            assert gate.read() == plan
            if has_tcx:
                names = [name[:4] for _, name in tcx.named(uplink.interface_index, INGRESS)]
                assert names == (["ovn_", "ovg_"] if native_first else ["ovg_", "ovn_"])

            before = one.received("native0")
            assert world.pings(one.container, "10.32.0.3", count=10) == 10
            if outer == 4 or can_mix_versions():
                assert one.received("native0") - before >= 10
            target = "192.168.56.12" if outer == 4 else "fd56::12"
            assert world.pings(one.host.name, target, "-e", "20000", count=3) == 3
            shown = world.run(gate.path.name, "ip", "-s", "link", "show", "eth1")
            assert int(shown.split("RX:")[1].split("\n")[1].split()[1]) >= 3
        finally:
            gate.remove()


@pytest.mark.parametrize("gate_goes_first", [True, False])
@pytest.mark.parametrize("gate_comes_first", [True, False])
def test_tcs_hooks_go_with_the_last_of_both(
    world: World,
    make_pair: PairMaker,
    monkeypatch: pytest.MonkeyPatch,
    *,
    gate_comes_first: bool,
    gate_goes_first: bool,
) -> None:
    """Whichever had them added; those that another program has added stay."""
    monkeypatch.setattr(tcx, "has_tcx", lambda: False)
    one, two = make_pair(4)
    world.run(two.host.name, "tc", "qdisc", "del", "dev", "eth1", "clsact")
    world.run(two.host.name, "tc", "qdisc", "add", "dev", "eth1", "clsact")
    for native, others_stay in ((one, False), (two, True)):
        if gate_comes_first:
            native.receiver.remove()
        with netns.inside(world.fd(native.host.name)), closing(Gate(NODE)) as gate:
            plan = GateState(frozenset({uplink_of(native)}), frozenset({native.host.underlay}))
            gate.write(gate.read(), plan)
            native.receive()
            removals = [gate.remove, native.receiver.remove]
            first, last = removals if gate_goes_first else reversed(removals)
            first()
            assert "clsact" in world.run(native.host.name, "tc", "qdisc", "show", "dev", "eth1")
            last()
        shown = world.run(native.host.name, "tc", "qdisc", "show", "dev", "eth1")
        assert ("clsact" in shown) is others_stay
