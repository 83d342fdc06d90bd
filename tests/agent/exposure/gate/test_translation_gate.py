"""When this host translates behind a gate, and in which order the gate is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.exposure.gate import decision, former_ports, translation_gate
from overlay.agent.exposure.gate.translation_gate import TranslationGate
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import ExposedLink, HostState, PortForward
from overlay.core.gate.host_view import HostAddress, HostInterface, HostView
from overlay.core.gate.port_block import USUAL_BLOCK, PortBlock
from overlay.core.gate.state import GatedInterface, GateState
from overlay.core.gate.translation import TranslationState, VirtualAddress
from overlay.errors import OverlayError
from overlay.model import Ip, Mac, NodeId, parse_ip

NODE = NodeId(bytes(16))
BLUE = ExposedLink("ovh1", ((parse_ip("10.32.0.0"), 16),))
GREEN = ExposedLink("ovh2", ((parse_ip("10.33.0.0"), 16),))
WANTED = HostState(frozenset({BLUE}))
ONE, TWO = (VirtualAddress("ovh1", parse_ip(ip)) for ip in ("10.32.9.1", "10.32.9.2"))
PORT = PortForward("tcp", Ip(b""), 8080, parse_ip("10.32.0.2"), 80, borrowed=False)


def interface(name: str, index: int, ip: str, *, is_own: bool = False) -> HostInterface:
    """Return an Ethernet interface with one address."""
    listed = (HostAddress(parse_ip(ip), 24),)
    mac = Mac(bytes(6))
    return HostInterface(name, index, mac, 1500, is_ethernet=True, is_own=is_own, addresses=listed)


HOST = HostView(
    (
        interface("eth0", 2, "192.0.2.1"),
        interface("ovh1", 3, "10.32.0.1", is_own=True),
        interface("ovh2", 4, "10.33.0.1", is_own=True),
    )
)


@dataclass
class Kernel:
    """A kernel's gate and table, and what was written, in order."""

    host: HostView = HOST
    why: str = ""
    state: GateState = field(default_factory=GateState)
    table: TranslationState | None = None
    calls: list[str] = field(default_factory=list)
    breaks: bool = False
    block: PortBlock | None = None  # of a gate that stands, perhaps of an agent of before
    stops: bool = False  # interfaces, as a gate comes
    no_hook: str = ""  # why an interface can't run the programs
    up_s: float = 1e6
    listening: frozenset[int] = frozenset()
    other_use: str = ""  # what other programs have
    open_ports: frozenset[int] = frozenset()  # of published connections
    while_read: Callable[[], None] = lambda: None  # as the host's interfaces are read
    admits: bool = False  # by the operator's marks
    unlisted: frozenset[int] = frozenset()  # interfaces that have gone since they were read
    path = Path("/nowhere")
    netns_fd = 7

    def prepare(self) -> None:
        """Create the namespace."""

    def keep_block(self, block: PortBlock) -> None:
        """Record the ports of a gate that is whole."""
        self.block = block

    def close(self) -> None:
        """Close the gate, or the table."""

    def read(self) -> GateState:
        """Return the gate's state."""
        if self.breaks:
            raise OSError(12, "no memory")
        return self.state

    def read_host(self) -> HostView:
        """Return the host's interfaces."""
        self.while_read()
        return self.host

    def existing(self, interfaces: frozenset[GatedInterface]) -> frozenset[GatedInterface]:
        """Return those that the host still has."""
        return frozenset(each for each in interfaces if each.interface_index not in self.unlisted)

    def holds(self, state: TranslationState) -> bool:
        """Return whether the table is that of a state."""
        return self.table == state

    def write(self, *states: GateState | TranslationState) -> None:
        """Write the gate, or the table."""
        *_, after = states
        if isinstance(after, GateState):
            self.calls.append(f"gate of {len(after.networks)}")
            self.state = after
        else:
            self.calls.append(f"table of {len(after.host.links)}")
            self.table = after

    def remove(self, _node_id: NodeId, _run_dir: None) -> None:
        """Remove all of it."""
        self.calls.append("remove")
        self.state, self.block = GateState(), None


def run(
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[TranslationGate, Kernel], Awaitable[None]],
    mode: str = "on",
) -> Kernel:
    """Have a gate work in a kernel."""
    kernel = Kernel()
    monkeypatch.setattr(translation_gate, "Gate", lambda _node_id, _run_dir: kernel)
    monkeypatch.setattr(translation_gate, "TranslationTable", lambda _path: kernel)
    monkeypatch.setattr(decision, "refusal", lambda _node_id: kernel.why)
    monkeypatch.setattr("time.clock_gettime", lambda _clock: kernel.up_s)
    monkeypatch.setattr(translation_gate, "kept_block", lambda _node_id: kernel.block)
    monkeypatch.setattr(decision, "listening_ports", lambda: kernel.listening)
    monkeypatch.setattr(decision, "admits_by_mark", lambda: kernel.admits)
    monkeypatch.setattr(decision, "other_use", lambda _node_id, _outside: kernel.other_use)
    monkeypatch.setattr(decision, "read_host", kernel.read_host)
    monkeypatch.setattr(translation_gate, "existing", kernel.existing)
    monkeypatch.setattr(translation_gate, "remove_gate", kernel.remove)
    monkeypatch.setattr(decision, "stops_interfaces", lambda: kernel.stops)
    monkeypatch.setattr(decision, "hook_obstacle", lambda _indexes: kernel.no_hook)
    monkeypatch.setattr(former_ports, "open_published_ports", lambda _fd, _own: kernel.open_ports)

    async def main() -> None:
        thread = KernelThread()
        try:
            await work(TranslationGate(NODE, thread, mode), kernel)
        finally:
            thread.close()

    asyncio.run(main())
    return kernel


def test_rules_come_before_packets_and_go_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """No packet is led to a table that does not know its network yet, or no longer."""

    async def work(made: TranslationGate, _kernel: Kernel) -> None:
        assert await made.bring(WANTED)
        assert await made.bring(replace(WANTED, links=frozenset({BLUE, GREEN})))
        assert await made.bring(WANTED)
        assert await made.bring(WANTED)

    assert run(monkeypatch, work).calls == [
        "table of 1", "gate of 1",
        "table of 2", "gate of 2",
        "gate of 1", "table of 1", "gate of 1",
    ]  # fmt: skip


def test_a_port_is_led_there_while_connections_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """After it is published no more, and by the next agent as well; a flow of UDP has no end."""
    udp = PORT._replace(protocol="udp", host_port=53)
    both, tcp = replace(WANTED, ports=frozenset({PORT, udp})), ("tcp", 8080)
    monkeypatch.setattr(limits, "GATE_RETIRING_S", 0.0)

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        await made.bring(both)
        kernel.open_ports = frozenset({8080, 53, 1})
        await made.bring(WANTED)
        assert kernel.state.published == {tcp}
        assert await made.differences() == []
        successor = TranslationGate(NODE, made._kernel, "on")
        await successor.bring(WANTED)
        assert kernel.state.published == {tcp, ("tcp", 53), ("tcp", 1)}
        kernel.open_ports = frozenset({1})
        await successor.bring(WANTED)
        assert kernel.state.published == {("tcp", 1)}
        kernel.open_ports = frozenset()
        await successor.bring(WANTED)
        assert kernel.state.published == frozenset()

    run(monkeypatch, work)


def test_nobody_looks_for_connections_of_a_gate_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Former ports are looked at every few seconds only while the gate stands."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        await made.bring(replace(WANTED, ports=frozenset({PORT})))
        kernel.open_ports = frozenset({8080})
        await made.bring(WANTED)
        looks = [made.look_again_s]
        kernel.host = replace(HOST, has_ipsec=True)
        assert await made.bring(WANTED) is None
        looks.append(made.look_again_s)
        kernel.host, kernel.open_ports = HOST, frozenset()
        assert await made.bring(WANTED)
        looks.append(made.look_again_s)
        assert looks == [limits.GATE_RETIRING_S, None, None]

    run(monkeypatch, work)


@pytest.mark.parametrize(("stops", "wait_s"), [(False, 30.0), (True, 3600.0)])
def test_an_attempt_that_failed_is_repeated_late(
    monkeypatch: pytest.MonkeyPatch, stops: bool, wait_s: float
) -> None:
    """Later still where each attempt stops interfaces."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        loop = asyncio.get_running_loop()
        kernel.breaks, kernel.stops, now_s = True, stops, loop.time()
        assert await made.bring(WANTED) is None
        kernel.breaks = False
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: now_s + wait_s - 1)
            assert await made.bring(WANTED) is None
        with monkeypatch.context() as patch:
            patch.setattr(loop, "time", lambda: now_s + wait_s + 1)
            assert await made.bring(WANTED)

    run(monkeypatch, work)


def test_virtual_addresses_stay_with_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not changed is not written; without a family there, an address is left out."""
    both = frozenset({ONE, TWO, ONE._replace(ip=parse_ip("fd32::9"))})

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        assert made.place is None
        for virtual, expected in ((both, [ONE.ip, TWO.ip]), (frozenset({ONE}), [ONE.ip])):
            kernel.calls.clear()
            await made.bring(WANTED, virtual)
            assert sorted(each.ip for each in kernel.state.virtual) == expected
            assert kernel.calls
            kernel.calls.clear()
            await made.bring(WANTED, virtual)
            assert kernel.calls == []
        successor = TranslationGate(NODE, made._kernel, "on")
        await successor.bring(WANTED, frozenset({ONE}))
        assert kernel.calls == []

    run(monkeypatch, work)


def test_off_and_without_networks_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read for it; what an earlier agent left is removed, once."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        assert await made.bring(WANTED) is None
        assert (made.decision.why, made.where, kernel.calls) == ("", None, [])
        await made.end()
        await made.end()

    assert run(monkeypatch, work, mode="off").calls == ["remove"]

    async def idle(made: TranslationGate, _kernel: Kernel) -> None:
        assert await made.bring(None) is None
        assert await made.bring(HostState()) is None
        assert made.decision.why == ""

    assert run(monkeypatch, idle).calls == []


def test_a_kernel_without_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason is told; it may have been a passing one."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.why = "no programs"
        assert await made.bring(WANTED) is None
        assert made.decision.why == "no programs"
        kernel.why = ""
        assert await made.bring(WANTED)
        assert made.decision.why == ""

    assert run(monkeypatch, work).calls == ["table of 1", "gate of 1"]


def test_an_obstacle_and_a_surplus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host translates meanwhile, and the gate afterwards; no pass hides the reason."""
    told: list[str] = []

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.host = replace(HOST, has_ipsec=True)
        assert await made.bring(WANTED) is None
        assert "IPsec" in made.decision.why
        kernel.while_read = lambda: told.append(made.decision.why)
        assert await made.bring(WANTED) is None
        assert told == [made.decision.why]
        kernel.while_read = lambda: None
        many = tuple(interface(f"eth{n}", 100 + n, "192.0.2.1") for n in range(65))
        kernel.host = HostView(many)
        assert await made.bring(WANTED) is None
        assert made.decision.why == "the host has 65 interfaces with addresses, and a gate takes 64"
        kernel.host, kernel.no_hook = HOST, "tc's ingress on eth0 leaves no hook"
        assert await made.bring(WANTED) is None
        assert made.decision.why == kernel.no_hook
        kernel.no_hook = ""
        assert await made.bring(WANTED)
        assert made.decision.why == ""

    assert run(monkeypatch, work).calls == ["table of 1", "gate of 1"]


def test_a_failure_ends_no_gate_that_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections live on; without one, the host translates, says why, and tries no more."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.breaks = True
        assert await made.bring(WANTED) is None
        assert kernel.block is None
        assert made.decision.why == "the gate could not be made: [Errno 12] no memory"
        kernel.breaks = False
        assert await made.bring(WANTED) is None  # for 30 s, unless something else is wanted
        more = replace(WANTED, links=frozenset({BLUE, GREEN}))
        assert await made.bring(more)
        kernel.breaks = True
        with pytest.raises(OSError, match="no memory"):
            await made.bring(replace(WANTED, ports=frozenset({PORT})))
        assert made.plan is not None
        assert made.where is not None
        assert made.where[1] > made.plan.translation.own

    run(monkeypatch, work)

    async def after(made: TranslationGate, kernel: Kernel) -> None:
        kernel.breaks, kernel.block = True, USUAL_BLOCK
        kernel.why = "too many open files"
        with pytest.raises(OSError, match="no memory"):
            await made.bring(WANTED)
        assert kernel.calls == []

    run(monkeypatch, after)


def test_differences_are_those_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the gate itself, and of its table; the next pass mends both."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        assert await made.differences() == []
        await made.bring(WANTED)
        assert await made.differences() == []
        kernel.state, kernel.table = GateState(), None
        assert await made.differences() == [
            "the gate is altered", "the gate's nft table is altered or gone",
        ]  # fmt: skip
        altered: list[bool] = []
        for _ in range(2):
            await made.bring(WANTED)
            altered.append(made.was_altered)
        assert altered == [True, False]
        assert await made.differences() == []

    run(monkeypatch, work)


@pytest.mark.parametrize("is_gone", [False, True])
def test_hooks_that_go_with_their_interface_are_no_damage(
    monkeypatch: pytest.MonkeyPatch, *, is_gone: bool
) -> None:
    """Nor does the pass that meets it, between the two, blame anybody."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        await made.bring(WANTED)
        (eth0,) = (each for each in kernel.state.interfaces if each.name == "eth0")
        kernel.state = replace(kernel.state, interfaces=kernel.state.interfaces - {eth0})
        kernel.unlisted = frozenset({eth0.interface_index} if is_gone else ())
        await made.bring(WANTED)

        assert made.was_altered != is_gone
        kernel.state = replace(kernel.state, own=frozenset())
        await made.bring(WANTED)
        assert made.was_altered

    run(monkeypatch, work)


def test_ports_are_chosen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From those that nobody uses; a gate keeps them, also over the agent's end."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.listening = frozenset({27_017})
        plan = await made.bring(replace(WANTED, ports=frozenset({PORT._replace(host_port=20_000)})))
        assert plan is not None
        assert plan.gate.block == plan.translation.block == kernel.block == PortBlock(3072, 19_455)
        kernel.listening = frozenset({5000})
        again = await made.bring(WANTED)
        assert again is not None
        assert again.gate.block == plan.gate.block
        await made.end()
        anew = await made.bring(WANTED)
        assert anew is not None
        assert anew.gate.block == USUAL_BLOCK

    run(monkeypatch, work)

    async def after(made: TranslationGate, kernel: Kernel) -> None:
        kernel.block = PortBlock(61_440, 65_535)
        plan = await made.bring(WANTED)
        assert plan is not None
        assert plan.gate.block == kernel.block == PortBlock(61_440, 65_535)

    run(monkeypatch, after)


def test_without_enough_free_ports_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the host may choose from those that the gate has, from then on."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.host = replace(HOST, own_ports=(1024, 65_535))
        assert await made.bring(WANTED) is None
        assert made.decision.why.startswith("no 4096 ports in one piece are free")
        kernel.host = HOST
        assert await made.bring(WANTED)
        kernel.host = replace(HOST, own_ports=(32_000, 60_999))
        assert await made.bring(WANTED) is None
        assert made.decision.why.endswith("have ports 32000 to 60999, the gate's 16384 to 32767")

    run(monkeypatch, work)


def test_a_gate_that_is_left_open_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others begin to track as it stands nothing moves, nor for the next agent."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        assert await made.bring(WANTED)
        kernel.other_use = "Docker tracks"
        assert await made.bring(replace(WANTED, ports=frozenset({PORT})))
        assert made.decision.why == ""

    run(monkeypatch, work, mode="auto")

    async def after(made: TranslationGate, kernel: Kernel) -> None:
        kernel.block, kernel.other_use = USUAL_BLOCK, "Docker tracks"
        assert await made.bring(WANTED)

    run(monkeypatch, after, mode="auto")


def test_where_others_track_there_is_none_if_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when these are gone, until nothing is exposed; one that is asked for is there."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.other_use = "Docker tracks"
        assert await made.bring(WANTED) is None
        assert (made.decision.why, made.decision.follows_host) == ("Docker tracks", False)
        kernel.other_use = ""
        assert await made.bring(WANTED) is None
        assert made.decision.why == "Docker tracks"
        assert await made.bring(None) is None
        assert (made.decision.why, made.decision.follows_host) == ("", True)
        assert await made.bring(WANTED)

    run(monkeypatch, work, mode="auto")

    async def asked(made: TranslationGate, kernel: Kernel) -> None:
        kernel.other_use = "Docker tracks"
        assert await made.bring(WANTED)

    run(monkeypatch, asked)


def test_where_interfaces_would_stop_it_must_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets are lost only if the operator accepts that; what stands has cost them already."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.stops = True
        assert await made.bring(WANTED) is None
        assert made.decision.why.startswith("before Linux 6.6 interfaces drop packets")
        assert made.decision.why.endswith('gate = "on" accepts that')
        assert not made.decision.follows_host
        kernel.block = USUAL_BLOCK
        assert await TranslationGate(NODE, made._kernel, "auto").bring(WANTED)

    run(monkeypatch, work, mode="auto")

    async def asked(made: TranslationGate, kernel: Kernel) -> None:
        kernel.stops = True
        assert await made.bring(WANTED)

    run(monkeypatch, asked)


def test_routes_from_outside_end_one_that_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the operator asks for them by marks; one that is asked for stays."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        assert await made.bring(WANTED)
        kernel.admits = True
        assert (await made.bring(WANTED) is None) == made.decision.is_optional
        assert ("overlayd_user" in made.decision.why) == made.decision.is_optional

    for mode in ("auto", "on"):
        run(monkeypatch, work, mode)


def test_one_that_could_not_stay_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is left open: its next end would cut connections off again."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.host = replace(HOST, has_ipsec=True)
        assert await made.bring(WANTED) is None
        kernel.host = HOST
        assert await made.bring(WANTED)  # there was none before that could be cut off
        kernel.host = replace(HOST, has_ipsec=True)
        assert await made.bring(WANTED) is None
        await made.end()
        kernel.host = HOST
        assert await made.bring(WANTED) is None
        assert "IPsec" in made.decision.why

    run(monkeypatch, work, mode="auto")


def test_one_that_never_was_whole_does_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that failed leaves a namespace: the next agent asks all that a first one asks."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.breaks = True
        assert await made.bring(WANTED) is None
        kernel.breaks, kernel.other_use = False, "Docker tracks"
        successor = TranslationGate(NODE, made._kernel, "auto")
        assert await successor.bring(WANTED) is None
        assert successor.decision.why == "Docker tracks"

    run(monkeypatch, work, mode="auto")


def test_the_next_agent_removes_nothing_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own maps are empty at first: that is no gate that has too much."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.block = PortBlock(4096, 12_287)
        assert await made.bring(WANTED)

    assert run(monkeypatch, work).calls == ["table of 1", "gate of 1"]


def test_others_may_begin_first_after_a_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is left open: Docker starts after the agent. One that is asked for, or stands, is."""

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        kernel.up_s = 15.0
        assert await made.bring(WANTED) is None
        assert (made.decision.why, made.look_again_s) == ("", 105.0)
        kernel.up_s = 120.0
        assert await made.bring(WANTED)
        assert made.look_again_s is None
        kernel.up_s = 15.0
        assert await TranslationGate(NODE, made._kernel, "auto").bring(WANTED)

    run(monkeypatch, work, mode="auto")

    async def asked(made: TranslationGate, kernel: Kernel) -> None:
        kernel.up_s = 15.0
        assert await made.bring(WANTED)

    run(monkeypatch, asked)


@pytest.mark.parametrize("mode", ["on", "auto"])
def test_an_address_that_is_renewed_ends_no_gate(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """It is waited for, and what else is wanted meanwhile waits too; each lack has a time anew."""
    monkeypatch.setattr(limits, "GATE_PATIENCE_S", 0.2)
    lacking = replace(HOST, default_routes=((4, 9),))

    async def work(made: TranslationGate, kernel: Kernel) -> None:
        plan = await made.bring(WANTED)
        for _ in range(2):
            kernel.host = lacking
            assert await made.bring(WANTED) == plan
            assert made.look_again_s is not None
            assert 0 < made.look_again_s <= 0.2
            kernel.host = HOST
            assert await made.bring(WANTED) == plan
            assert made.look_again_s is None
        kernel.host = lacking
        assert await made.bring(WANTED) == plan
        assert made.look_again_s is not None
        await asyncio.sleep(made.look_again_s)
        assert await made.bring(WANTED) is None
        assert "has no address of it" in made.decision.why

        kernel.host = HOST
        assert await made.bring(WANTED)
        kernel.host = lacking
        more = replace(WANTED, ports=frozenset({PORT}))
        for each in (made, TranslationGate(NODE, made._kernel, mode)):  # or the next agent
            with pytest.raises(OverlayError, match="has no address of it"):
                await each.bring(more)
            assert each.look_again_s is not None
        await asyncio.sleep(0.2)
        assert await made.bring(more) is None
        assert kernel.calls.count("remove") == 0, "which the rules do when the hooks are there"
        kernel.host = HOST
        assert await made.bring(more), "also if it was left open"

    run(monkeypatch, work, mode)
