"""The programs on the underlay follow the records, the routes and the sandboxes."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.dataplane.fast_path import FastPathSupport
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.gossip.context import NodeContext
from overlay.agent.native import controller, firewall
from overlay.agent.native.controller import NativePath
from overlay.agent.native.data_path import DataPath, data_path_of
from overlay.agent.process.event_log import EventLog
from overlay.core.dataplane.controls.port_controls import PRIORITY_LABEL
from overlay.core.dataplane.link_state import Link, Shortcut
from overlay.core.dataplane.network_drivers import BRIDGE, labels_of
from overlay.core.dataplane.planning.links import shortcut_name
from overlay.core.dataplane.state import SandboxState
from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.core.encryption.switch_phase import SwitchPhase
from overlay.core.native.state import NativeState, NativeVni
from overlay.model import Endpoint, Ip, Mac, Network, NodeId, Subnet, Vni, parse_ip
from overlay.signals import AsyncSignal, Signal

OWN, MEMBER, OTHER = (parse_ip(f"192.168.56.{number}") for number in (10, 11, 12))
PARTICIPANTS = [NodeId(b"vm%d" % number * 4) for number in (1, 2, 3, 4)]
ETH1, WG0 = 2, 9
SUBNET = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
BLUE = Network(Vni(100), "blue", (SUBNET,), NodeId(b"o" * 16))
NATIVE = NativeState(
    frozenset({ETH1}),
    frozenset({OWN}),
    frozenset({ArrivalPath(ETH1, MEMBER)}),
    frozenset({NativeVni(BLUE.vni, 17)}),
)


def with_priority(priority: str) -> Endpoint:
    """Return a container with a priority; an empty text is none."""
    labels = ((PRIORITY_LABEL, priority),) if priority else ()
    ips = (parse_ip("10.1.0.2"),)
    return Endpoint(b"e" * 8, BLUE.vni, "c1", Mac(bytes(6)), ips, labels=labels)


class Host:
    """A member whose records and kernel are what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, mode: str = "auto") -> None:
        self.members: set[Ip] = {MEMBER}
        self.shortcuts = {shortcut_name(0): 17}
        self.phase = SwitchPhase.CLEAR
        self.kernel = NativeState()
        self.refusal: OSError | None = None
        self.reads = self.removals = 0
        self.reasons = {ETH1: "", WG0: "wg0 is not an Ethernet interface"}
        self.event_log = EventLog(path)
        self.support = FastPathSupport("auto", mode)
        self.judging: str | OSError = ""
        self.existing = frozenset(each.shortcut for each in NATIVE.vnis)  # interfaces
        self.followed: list[tuple[bool, NativeState]] = []
        self.paths = SimpleNamespace(
            known=frozenset({ArrivalPath(ETH1, MEMBER)}),
            determined=Signal[[]](),
            interface="eth1",
        )
        view = SimpleNamespace(
            vteps=lambda: frozenset(self.members),
            encryption_phase=lambda _network: self.phase,
            participants=lambda _vni, *, forwarding: PARTICIPANTS if forwarding else [],
            vtep_of=lambda _node_id: MEMBER,
        )
        reconciler = SimpleNamespace(
            fast_path=self.support,
            sandbox_changed=Signal[[Vni]](),
            shortcuts_ending=AsyncSignal[[]](),
            mark_stale=self._follow,
            runtime=lambda _vni: SimpleNamespace(shortcuts=self.shortcuts),
        )
        self.reconciler = cast("Reconciler", reconciler)
        gossip = SimpleNamespace(
            cluster=SimpleNamespace(vxlan_port=4789),
            node_id=NodeId(b"s" * 16),
            card=SimpleNamespace(address=OWN),
        )
        self.card = gossip.card
        self.endpoints: list[Endpoint] = []
        self.said: frozenset[NodeId] = frozenset()
        directory = SimpleNamespace(
            view=view,
            networks=lambda: [BLUE],
            own_endpoints=lambda _vni: self.endpoints,
            own=gossip.node_id,
            node_name=lambda node_id: node_id.decode()[:3],
            zero_checksum=SimpleNamespace(nodes=lambda: self.said),
        )
        monkeypatch.setattr(controller, "NativeReceiver", lambda _node, _port: self)
        monkeypatch.setattr(controller, "remove_programs", self._remove)
        monkeypatch.setattr(controller, "usable_interfaces", self._usable)
        monkeypatch.setattr(controller, "existing_interfaces", lambda _indexes: self.existing)
        monkeypatch.setattr(firewall, "judging_rule", self._judge)
        context = NodeContext(
            cast("Any", gossip), cast("Any", directory), cast("Any", self), self.event_log
        )
        self.native = NativePath(context, self.reconciler, cast("Any", self.paths), 30.0)

    async def call(self, function: Any, *arguments: object) -> Any:
        """Call a function as the kernel thread does."""
        return function(*arguments)

    def read(self) -> NativeState:
        """Return what the kernel has."""
        self.reads += 1
        return self.kernel

    def write(self, before: NativeState, after: NativeState) -> None:
        """Change what the kernel has."""
        assert before == self.kernel
        if self.refusal is not None:
            raise self.refusal
        self.kernel = after

    def _remove(self, _node: NodeId) -> None:
        self.removals += 1

    def _follow(self) -> None:
        self.followed.append((self.support.is_native, self.kernel))

    def _judge(
        self, own: Ip, members: frozenset[Ip], indexes: frozenset[int], fallback: str, port: int
    ) -> str:
        assert (own, set(members), fallback, port) == (OWN, self.members, "eth1", 4789)
        assert indexes == {path.interface for path in self.paths.known or ()}
        if isinstance(self.judging, OSError):
            raise self.judging
        return self.judging

    def _usable(self, indexes: Iterable[int]) -> dict[int, str]:
        return {index: self.reasons[index] for index in indexes if index in self.reasons}

    def repairs(self) -> list[str]:
        """Return the texts of the repairs that the log has."""
        return [each["text"] for each in self.event_log.since(0) if each["kind"] == "repaired"]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    """Return a host with a network in clear and one member."""
    return Host(monkeypatch, tmp_path)


async def test_the_programs_follow_records_and_sandboxes(host: Host) -> None:
    """A pass without a change reads nothing; a former member is removed."""
    await host.native.attempt()
    assert host.kernel == NATIVE
    await host.native.attempt()
    assert host.reads == 1

    host.members = {OTHER}
    await host.native.attempt()
    assert host.kernel == NativeState()
    assert host.reads == 1


async def test_a_sandbox_repairs_the_ends_of_its_shortcuts(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the kernel tells of what another program did to one; and the event says it."""
    links: dict[str, Link] = {name: Shortcut(name, 1450) for name in host.shortcuts}
    runtime = SimpleNamespace(shortcuts=host.shortcuts, desired=SandboxState(links), hints=[])
    stale: list[Vni] = []
    monkeypatch.setattr(host.reconciler, "runtime", lambda _vni: runtime)
    monkeypatch.setattr(host.reconciler, "mark_stale", stale.append)
    said = dict.fromkeys(host.shortcuts.values(), "")
    monitor = SimpleNamespace(
        alteration=lambda _link, end: said[end], forget=lambda: None, are_hooks_changed=False
    )
    host.native._follow_host(cast("Any", monitor))
    assert stale == []

    said = dict.fromkeys(host.shortcuts.values(), "its hook is gone")
    host.native._follow_host(cast("Any", monitor))
    assert (stale, runtime.hints) == ([BLUE.vni], ["its hook is gone"])


async def test_nothing_is_touched_before_the_routes_are_known(host: Host) -> None:
    """The former agent's programs run on meanwhile."""
    known, host.paths.known = host.paths.known, None
    await host.native.attempt()
    assert (host.reads, host.removals) == (0, 0)

    host.paths.known = known
    host.paths.determined.emit()
    await host.native.attempt()
    assert host.kernel == NATIVE


async def test_what_another_program_changes_is_repaired(host: Host) -> None:
    """The log has what was missing; `verify` shows it before."""
    await host.native.attempt()
    host.kernel = NativeState(frozenset(), NATIVE.own, NATIVE.paths, NATIVE.vnis)
    host.native.mark_stale()
    assert await host.native.differences() == [f"native path: add program on interface {ETH1}"]
    await host.native.attempt()

    assert host.kernel == NATIVE
    assert host.repairs() == [
        f"the native path was altered (program on interface {ETH1}): rewritten"
    ]
    assert await host.native.differences() == []


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_shortcut_goes_with_its_interface(host: Host, *, is_there: bool) -> None:
    """As a container's network is given up; else another program took it away."""
    await host.native.attempt()
    host.kernel = replace(NATIVE, vnis=frozenset())
    host.existing = host.existing if is_there else frozenset()
    host.native.mark_stale()
    await host.native.attempt()

    texts = [f"the native path was altered (VNI {BLUE.vni} by interface 17): rewritten"]
    assert host.repairs() == (texts if is_there else [])


async def test_an_interface_that_is_gone_is_no_repair(host: Host) -> None:
    """Its hook went with it, and the plan is without it."""
    await host.native.attempt()
    host.kernel = NativeState(frozenset(), NATIVE.own, NATIVE.paths, NATIVE.vnis)
    del host.reasons[ETH1]
    host.native.mark_stale()
    await host.native.attempt()

    assert host.repairs() == []
    assert host.native.why == ""


async def test_a_refusal_is_a_fault_and_tried_again(host: Host) -> None:
    """The status says what the kernel said; the frames take the VXLAN device."""
    host.refusal = OSError(errno.ENOSPC, "No space left on device")
    await host.native.attempt()
    assert host.native.why == "No space left on device"
    path = data_path_of(BLUE, host.reconciler, host.native)
    assert path == DataPath("fast", "No space left on device")
    (told,) = await host.native.differences()
    assert "No space left on device" in told

    host.refusal = None
    await host.native.attempt()
    assert host.native.why == ""
    assert host.kernel == NATIVE
    assert data_path_of(BLUE, host.reconciler, host.native) == DataPath("native", "")


async def test_a_host_without_a_network_runs_no_program(host: Host) -> None:
    """Programs that a former agent left are removed once."""
    host.shortcuts = {}
    await host.native.attempt()
    await host.native.attempt()
    assert (host.reads, host.removals) == (0, 1)


async def test_the_reason_of_a_slower_path_is_named(host: Host) -> None:
    """Of the network if it has one, else of the interfaces or the programs."""
    host.paths.known = frozenset({ArrivalPath(WG0, MEMBER)})
    await host.native.attempt()
    assert host.native.why_not(BLUE) == "wg0 is not an Ethernet interface"
    host.phase = SwitchPhase.ENCRYPTED
    assert host.native.why_not(BLUE) == "it is encrypted"
    host.phase = SwitchPhase.READY
    assert host.native.why_not(BLUE) == "it is being switched"
    local = Network(BLUE.vni, "blue", (SUBNET,), BLUE.creator, labels=labels_of(BRIDGE, ""))
    assert host.native.why_not(local) == "its frames do not leave this host"


async def test_what_is_sent_by_the_device_is_said(host: Host) -> None:
    """Of a network whose frames come by the native path, and leave by the VXLAN device."""
    await host.native.attempt()
    host.endpoints = [with_priority("")]
    assert data_path_of(BLUE, host.reconciler, host.native) == DataPath("native", "")
    host.endpoints = [with_priority("5")]
    why = "to other hosts by the VXLAN device, as a container here has a priority"
    assert data_path_of(BLUE, host.reconciler, host.native) == DataPath("native", why)
    shared = replace(BLUE, labels=(("overlayd.shared-rate", "64000"),))
    why = "to other hosts by the VXLAN device, as its containers share a rate"
    assert data_path_of(shared, host.reconciler, host.native) == DataPath("native", why)


async def test_members_that_need_checksums_over_ipv6_are_named(host: Host) -> None:
    """Until each of a network's hosts has said that it does not."""
    await host.native.attempt()
    host.card.address = parse_ip("fd56::10")
    device = "by the VXLAN device, as IPv6 packets there need a UDP checksum"
    why = f"to vm1, vm2, vm3 and 1 more {device}"
    assert data_path_of(BLUE, host.reconciler, host.native) == DataPath("native", why)
    host.said = frozenset(PARTICIPANTS[1:])
    path = data_path_of(BLUE, host.reconciler, host.native)
    assert path == DataPath("native", f"to vm1 {device}")
    host.said = frozenset(PARTICIPANTS)
    assert data_path_of(BLUE, host.reconciler, host.native) == DataPath("native", "")


async def test_before_a_shortcut_goes_nothing_leads_there(host: Host) -> None:
    """As in a network that is being switched to encryption: frames take the VXLAN device."""
    await host.native.attempt()
    host.shortcuts = {}
    await host.reconciler.shortcuts_ending.emit()
    assert (host.kernel, host.repairs()) == (NativeState(), [])


async def test_a_firewall_that_judges_keeps_the_path_off(host: Host) -> None:
    """Frames take the VXLAN device before the sandboxes lose their shortcuts."""
    await host.native.attempt()
    host.judging = "table inet filter, chain input"
    await host.native.firewall.attempt()
    assert host.followed == [(False, NativeState())]
    wanted = (
        "the host's firewall judges VXLAN packets (table inet filter, chain input); "
        'native_path = "on" would bypass it'
    )
    assert data_path_of(BLUE, host.reconciler, host.native) == DataPath("fast", wanted)
    assert await host.native.differences() == []

    host.judging = ""
    await host.native.firewall.attempt()
    await host.native.attempt()
    assert host.followed[1:] == [(True, NativeState())]
    assert host.kernel == NATIVE


async def test_a_firewall_that_cannot_be_read_may_judge(host: Host) -> None:
    """That is no fault: frames pass, only slower."""
    host.judging = PermissionError(errno.EPERM, "Operation not permitted")
    await host.native.firewall.attempt()
    assert "could not be read (Operation not permitted)" in host.native.why
    assert [*host.native.faults(), *host.native.firewall.faults(), *host.support.faults()] == []


async def test_before_the_first_sandbox_a_former_agents_programs_go(host: Host) -> None:
    """Where the firewall judges at the start; the routes need not be known for that."""
    host.paths.known = None
    host.judging = "table inet filter, chain input"
    await host.native.firewall.attempt()
    assert host.removals == 1


async def test_on_does_not_ask_the_firewall(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The operator has accepted that it is bypassed."""
    host = Host(monkeypatch, tmp_path, "on")
    host.judging = "table inet filter, chain input"
    await host.native.firewall.attempt()
    await host.native.attempt()
    assert host.kernel == NATIVE


async def test_off_leaves_no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither one of its own nor a former agent's."""
    host = Host(monkeypatch, tmp_path, "off")
    async with host.native.prepare():
        await host.native.attempt()
    assert (host.reads, host.removals) == (0, 1)
    assert host.native.why == "switched off in the configuration"
