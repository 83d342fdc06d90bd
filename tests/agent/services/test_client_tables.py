"""Which containers have a table of virtual addresses, and when it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.event_log import EventLog
from overlay.agent.services.client_tables import ClientTables
from overlay.agent.services.connect_choice import ConnectChoice, LedContainer
from overlay.agent.services.host_client import HostClient
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.services.values import Backend, VirtualPort
from overlay.kernel import netns
from overlay.kernel.services import lost_flows, table_writer
from overlay.kernel.services.table_writer import WrittenTable
from overlay.model import Ip, NodeId, Vni
from overlay.signals import AsyncSignal, Signal

BLUE, RED = Vni(1), Vni(2)
HOST, GATE, WEB, API = (4, 1), (4, 2), (4, 7), (4, 8)
NODE = NodeId(bytes(16))
VIRTUAL = Ip(bytes([10, 32, 0, 100]))


def port(*numbers: int, vni: Vni = BLUE, protocol: Any = "udp") -> VirtualPort:
    """Return a virtual port with backends of these numbers; negative ones get nothing new."""
    backends = tuple(
        Backend(Ip(bytes([10, 32, 0, abs(each)])), 53, NODE, is_resting=each < 0)
        for each in numbers
    )
    return VirtualPort(vni, VIRTUAL, protocol, 53, backends)


def attachment(identity: tuple[int, int], vni: Vni = BLUE, **fields: Any) -> Attachment:
    """Return an attachment of a container."""
    given: dict[str, Any] = {
        "endpoint_id": bytes([identity[1], vni] * 4).hex(),
        "vni": vni,
        "target": f"netns:{identity[1]}",
        "netns_path": f"/proc/{identity[1]}/ns/net",
        "netns_identity": identity,
        "container_id": None,
        "ifname": "eth0",
        "port": "ve0",
        "subnet_index": 0,
        "gateway": True,
        "plugged": True,
    }
    return Attachment(**{**given, **fields})


class Bench:
    """Tables over a kernel that only notes what is written where."""

    def __init__(self, directory: Path, *attached: Attachment) -> None:
        self.ports: dict[Vni, tuple[VirtualPort, ...]] = {}
        self.calls: list[tuple[str, tuple[int, int]]] = []
        self.moved: dict[VirtualPort, frozenset[Ip]] = {}
        self.fails_in: set[tuple[int, int]] = set()
        self.flows: list[tuple[int, int]] = []  # where they were ended, after which tables
        self.wrote_after_flows = False
        self.flows_stay_in: set[tuple[int, int]] = set()
        self.move_error: OSError | None = None
        self.moves: list[Any] = []
        self.gone: set[tuple[int, int]] = set()
        self.attachments = Attachments(attached)
        self.exposed_vnis: set[Vni] = set()
        self.changed: AsyncSignal[[tuple[int, int]]] = AsyncSignal()
        services = SimpleNamespace(virtual_ports=lambda network: self.ports.get(network.vni, ()))
        view = SimpleNamespace(services=services)
        records = SimpleNamespace(view=view, network_by_vni=lambda vni: SimpleNamespace(vni=vni))
        gossip = SimpleNamespace(node_id=NODE, until_may_write=self._may_write)
        log = EventLog(directory)
        context = cast("NodeContext", SimpleNamespace(
            gossip=gossip, directory=records, kernel=self, event_log=log
        ))  # fmt: skip
        signals: tuple[Any, Signal[[]]] = self.changed, Signal()
        off = ConnectChoice(context, "off")
        self.gate_place: tuple[str, tuple[int, int]] | None = None
        self.is_settled = True
        host = HostClient(self, self)
        self.tables = ClientTables(context, self.attachments, host, *signals, off)

    @staticmethod
    async def _may_write() -> None:
        """Let the node write at once."""

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Note the call of a function of the kernel layer."""
        if function is netns.own_identity:
            return HOST
        identity = args[1]
        if function is table_writer.move:
            self.calls.append(("move", identity))
            self.moves = args[4]
            if self.move_error is not None:
                raise self.move_error
            return replace(args[3], state=b"moved")
        if function is lost_flows.end:
            self.moved = args[2].ports
            self.flows.append(identity)
            if identity in self.flows_stay_in:
                raise OSError(12, "no memory")
            return 0
        if identity in self.fails_in:
            raise OSError(12, "no memory")
        plan = args[3]
        if identity in self.gone:
            return None, False
        self.wrote_after_flows |= bool(self.flows)
        self.calls.append(("remove" if plan.is_empty else "put", identity))
        return (None if plan.is_empty else WrittenTable(plan, b"", 1)), False

    def reconcile(self) -> list[tuple[str, tuple[int, int]]]:
        """Run a pass; return what was written."""
        self.calls.clear()
        self.flows.clear()

        async def main() -> None:
            async with self.tables.prepare():
                await self.tables.attempt()

        asyncio.run(main())
        return sorted(self.calls, key=lambda call: call[1])


def test_every_client_has_the_table_once(tmp_path: Path) -> None:
    """Of the networks that it is on; what has not changed is not written again."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API, RED))
    bench.ports[BLUE] = (port(2, 3),)

    written = [("remove", HOST), ("put", WEB), ("remove", API)]
    assert bench.reconcile() == written  # nothing of a former agent is left in the others
    assert bench.reconcile() == []
    bench.ports[BLUE] = (port(2),)
    assert bench.reconcile() == [("put", WEB)]
    bench.ports[BLUE] = ()
    assert bench.reconcile() == [("remove", WEB)]


class NotedChoice(ConnectChoice):
    """Containers that are to be led, in order, each time that this changes."""

    def __init__(self, bench: Bench) -> None:
        context = SimpleNamespace(kernel=bench, gossip=bench.tables._gossip)
        super().__init__(cast("NodeContext", context), "off")
        self._bench = bench
        bench.tables._at_connect = self
        self.noted: list[tuple[str, tuple[int, int], int]] = []
        self.tables_written: list[int] = []  # before each

    async def follow(self, containers: Iterable[LedContainer]) -> None:
        """Note the containers that have changed."""
        for each in containers:
            if self._led.get(each.identity, ()) != each.ports:
                self._led[each.identity] = each.ports
                self.noted.append((each.path, each.identity, len(each.ports)))
                self.tables_written.append(len(self._bench.calls))


async def test_connections_are_led_everywhere_before_tables_are_filled(tmp_path: Path) -> None:
    """A table may take 0.3 s; and what has not changed is not told again."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API))
    choice = NotedChoice(bench)
    bench.ports[BLUE] = (port(2, 3, protocol="tcp"),)
    async with bench.tables.prepare():
        await bench.tables.attempt()
        assert sorted(choice.noted) == [("/proc/7/ns/net", WEB, 1), ("/proc/8/ns/net", API, 1)]
        for now, count in ((bench.ports[BLUE], 0), ((), 2)):
            choice.noted.clear()
            bench.calls.clear()
            bench.ports[BLUE] = now
            await bench.tables.attempt()
            assert [ports for _, _, ports in choice.noted] == [0] * count
    assert not any(choice.tables_written)


async def test_a_container_that_is_gone_is_led_no_longer(tmp_path: Path) -> None:
    """Also one that never had a table, as that failed."""
    bench = Bench(tmp_path, attachment(WEB))
    bench.fails_in = {WEB}
    choice = NotedChoice(bench)
    bench.ports[BLUE] = (port(2, 3, protocol="tcp"),)
    async with bench.tables.prepare():
        await bench.tables.attempt()
        assert [ports for _, _, ports in choice.noted] == [1]
        del bench.attachments[bytes.fromhex(attachment(WEB).endpoint_id)]
        await bench.tables.attempt()
    assert [ports for _, _, ports in choice.noted] == [1, 0]


def test_containers_that_cannot_be_led_are_named(tmp_path: Path) -> None:
    """Each of their packets is translated, until a later call succeeds."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API))
    choice = NotedChoice(bench)
    choice.left = {WEB: "no memory"}
    (found,) = bench.tables.faults()
    assert found.text.endswith("translated in netns:7: no memory")
    choice.left[API] = "no memory either"
    (found,) = bench.tables.faults()
    assert found.text.endswith("translated in netns:7 (and in 1 more): no memory")


async def test_a_change_while_tables_are_filled_is_led_at_once(tmp_path: Path) -> None:
    """The records of 100 new services arrive one after the other."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API))
    choice = NotedChoice(bench)
    call = bench.call

    async def call_and_create(function: Callable[..., Any], *args: Any) -> Any:
        if function is table_writer.ensure and len(bench.ports[BLUE]) == 1:
            bench.ports[BLUE] += (replace(port(4, protocol="tcp"), port=54),)
            bench.tables.trigger()
        return await call(function, *args)

    bench.ports[BLUE] = (port(2, 3, protocol="tcp"),)
    bench.call = call_and_create  # type: ignore[method-assign]
    async with bench.tables.prepare():
        await bench.tables.attempt()

    order = [(identity, count) for _, identity, count in choice.noted]
    assert sorted(order[:2]) == [(WEB, 1), (API, 1)]
    assert sorted(order[2:]) == [(WEB, 2), (API, 2)]


async def test_a_change_while_tables_are_filled_reaches_all_tables(tmp_path: Path) -> None:
    """Also those that were written before it."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API))
    call = bench.call

    async def call_and_change(function: Callable[..., Any], *args: Any) -> Any:
        answer = await call(function, *args)
        if len([each for each in bench.calls if each[0] == "put"]) == 1:
            bench.ports[BLUE] = (port(2),)
            bench.tables.trigger()
        return answer

    bench.ports[BLUE] = (port(2, 3),)
    bench.call = call_and_change  # type: ignore[method-assign]
    async with bench.tables.prepare():
        await bench.tables.attempt()
        await bench.tables.attempt()
    plans = {at: client.reachable.ports for at, client in bench.tables._clients.items()}
    assert plans == {WEB: (port(2),), API: (port(2),)}


async def test_a_pass_looks_only_at_changed_containers(tmp_path: Path) -> None:
    """However many others there are; one whose table could not be written is looked at again."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API, RED))
    bench.ports[BLUE] = (port(2),)
    looked: list[tuple[int, int]] = []
    of_target = bench.attachments.of_target

    def noted(identity: tuple[int, int]) -> list[Attachment]:
        looked.append(identity)
        return of_target(identity)

    async with bench.tables.prepare():
        await bench.tables.attempt()
        bench.attachments.of_target = noted  # type: ignore[method-assign]
        bench.tables.trigger()
        await bench.tables.attempt()
        assert {*looked} == {HOST}

        bench.fails_in.add(WEB)
        bench.tables._ports.clear()  # as after a restart of the pass: it has to be written
        bench.ports[BLUE] = (port(2, 3),)
        await bench.changed.emit(WEB)
        bench.fails_in.clear()
        bench.calls.clear()
        await bench.tables.attempt()
    assert bench.calls == [("put", WEB)]


def test_an_attach_waits_for_no_table_without_services(tmp_path: Path) -> None:
    """The next pass looks whether one is left; with services the table is there at once."""
    bench = Bench(tmp_path)
    bench.reconcile()
    for each in (attachment(WEB), attachment(API, RED)):
        bench.attachments[bytes.fromhex(each.endpoint_id)] = each
    bench.ports[BLUE] = (port(2),)
    bench.tables._ports.clear()

    async def attach() -> None:
        bench.calls.clear()
        await bench.changed.emit(WEB)
        await bench.changed.emit(API)

    asyncio.run(attach())
    assert bench.calls == [("put", WEB)]
    assert bench.reconcile() == [("remove", API)]


def test_the_host_is_a_client_of_its_networks(tmp_path: Path) -> None:
    """As long as it has an interface there, and has not left."""
    bench = Bench(tmp_path)
    bench.ports[BLUE] = (port(2),)
    bench.exposed_vnis.add(BLUE)
    assert bench.reconcile() == [("put", HOST)]

    asyncio.run(bench.tables.withdraw())
    assert bench.calls[-1] == ("remove", HOST)


AT_GATE = ("/run/netns/gate", GATE)


def served_host(directory: Path) -> Bench:
    """Return the tables of a host that is on a network with a service."""
    bench = Bench(directory)
    bench.ports[BLUE] = (port(2, 3),)
    bench.exposed_vnis.add(BLUE)
    return bench


def test_the_hosts_table_moves_to_its_gate_and_back(tmp_path: Path) -> None:
    """What is in the host's own namespace is removed after that, with flows that it translated."""
    bench = served_host(tmp_path)
    assert bench.reconcile() == [("put", HOST)]
    bench.gate_place = AT_GATE
    bench.reconcile()
    assert bench.calls == [("put", GATE), ("remove", HOST)]
    assert bench.flows == [HOST, GATE]
    assert bench.reconcile() == []
    assert bench.flows == []
    bench.ports[BLUE] = (port(2),)
    assert bench.reconcile() == [("put", GATE)]
    assert bench.flows == [GATE]
    bench.gate_place = None
    assert bench.reconcile() == [("put", HOST)]
    assert bench.flows == [HOST]


def test_a_former_agents_tables_of_the_host_are_removed(tmp_path: Path) -> None:
    """From its own namespace and from the gate's, if it reaches no service."""
    bench = Bench(tmp_path)
    bench.gate_place = AT_GATE
    assert bench.reconcile() == [("remove", HOST), ("remove", GATE)]
    assert bench.reconcile() == []
    bench.gate_place = None
    assert bench.reconcile() == [("remove", HOST)]


def test_the_hosts_table_waits_for_its_place(tmp_path: Path) -> None:
    """It is written nowhere before it is known where the host translates, and stays meanwhile."""
    bench = served_host(tmp_path)
    bench.is_settled = False
    assert bench.reconcile() == []
    bench.is_settled, bench.gate_place = True, AT_GATE
    assert bench.reconcile() == [("remove", HOST), ("put", GATE)]
    bench.is_settled, bench.gate_place = False, None
    bench.ports[BLUE] = (port(2),)
    assert bench.reconcile() == [("put", GATE)]


def test_flows_of_a_removed_service_end_in_the_gate(tmp_path: Path) -> None:
    """Though no table is there any more."""
    bench = Bench(tmp_path)
    bench.gate_place = AT_GATE
    bench.ports[BLUE] = (port(2, 3),)
    bench.exposed_vnis.add(BLUE)
    bench.reconcile()
    bench.ports[BLUE] = ()
    assert bench.reconcile() == [("remove", GATE)]
    assert bench.flows == [GATE]


def test_a_table_that_cannot_be_removed_is_tried_again(tmp_path: Path) -> None:
    """Also where the host reaches no service."""
    bench = Bench(tmp_path)
    bench.gate_place, bench.fails_in = AT_GATE, {HOST}
    bench.reconcile()
    assert bench.tables.fault is not None
    bench.fails_in = set()
    assert ("remove", HOST) in bench.reconcile()
    assert bench.tables.fault is None


def test_half_a_move_is_finished(tmp_path: Path) -> None:
    """What the host's own namespace refuses is tried again, and losses are noted meanwhile."""
    bench = served_host(tmp_path)
    bench.reconcile()
    bench.gate_place, bench.fails_in = AT_GATE, {HOST}
    assert bench.reconcile() == [("put", GATE)]
    assert bench.tables.fault is not None
    bench.fails_in = set()
    assert bench.reconcile() == [("remove", HOST), ("put", GATE)]
    assert bench.tables.fault is None


def test_a_gate_that_is_gone_is_a_fault(tmp_path: Path) -> None:
    """Its namespace is made again, and the host's own keeps its table until then."""
    bench = served_host(tmp_path)
    bench.reconcile()
    bench.gate_place, bench.gone = AT_GATE, {GATE}
    bench.reconcile()
    assert bench.tables.fault is not None
    assert ("remove", HOST) not in bench.calls
    bench.gone = set()
    assert bench.reconcile() == [("remove", HOST), ("put", GATE)]


def test_the_hosts_unanswered_connections_end_behind_a_gate(tmp_path: Path) -> None:
    """Its table does not see what is sent to a backend itself, so it can't lead that elsewhere."""
    bench = Bench(tmp_path)
    choice = FakeChoice(
        cast("NodeContext", SimpleNamespace(kernel=bench, gossip=bench.tables._gossip)), "off"
    )
    bench.tables._at_connect = choice
    bench.gate_place = AT_GATE
    bench.exposed_vnis.add(BLUE)
    bench.ports[BLUE] = (port(2, 3, protocol="tcp"),)
    bench.reconcile()
    bench.ports[BLUE] = (port(2, protocol="tcp"),)
    assert ("move", HOST) in bench.reconcile()
    assert bench.moves == [("a connection", None)]


@pytest.mark.parametrize(
    ("fields", "has_table"),
    [
        ({"hands_off": True}, False),
        ({"hands_off": True, "runtime_endpoint": "e"}, True),
        ({"plugged": False}, False),
    ],
)
def test_a_container_may_be_left_alone(
    tmp_path: Path, fields: dict[str, Any], has_table: bool
) -> None:
    """With `--hands-off`, which Docker's networks do not mean by it."""
    bench = Bench(tmp_path, attachment(WEB, **fields))
    bench.ports[BLUE] = (port(2),)

    assert (("put", WEB) in bench.reconcile()) == has_table


def test_one_failure_holds_up_no_other(tmp_path: Path) -> None:
    """It is reported, and that container is tried again."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API))
    bench.ports[BLUE] = (port(2),)
    bench.fails_in = {WEB}
    assert ("put", API) in bench.reconcile()
    assert bench.tables.fault is not None
    assert bench.tables.fault.text in asyncio.run(bench.tables.differences())

    bench.fails_in = set()
    assert ("put", WEB) in bench.reconcile()
    assert bench.tables.fault is None


def test_a_table_that_was_read_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root there may change rules all the time, and 100,000 elements take 2 s to read."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API))
    bench.ports[BLUE] = (port(2),)
    bench.reconcile()
    monkeypatch.setattr(limits, "SERVICE_ELEMENT_REST_S", 3600.0)

    async def check() -> None:
        for identity in (WEB, WEB, API):
            await bench.changed.emit(identity)

    bench.calls.clear()
    asyncio.run(check())
    assert bench.calls == [("put", WEB), ("put", API)]
    bench.ports[BLUE] = (port(2, 3),)  # a change is written at once
    assert bench.reconcile() == [("put", WEB), ("put", API)]
    bench.calls.clear()
    asyncio.run(check())
    asyncio.run(bench.tables.verify_all())  # and who asks for a repair gets it
    assert bench.calls == 2 * [("put", WEB), ("put", API)]


def test_flows_leave_a_backend_that_stops_answering(tmp_path: Path) -> None:
    """Those of another that comes or stays are left alone; a start cannot know which have moved."""
    bench = Bench(tmp_path, attachment(WEB))
    both, more, less = port(2, 3), port(2, 3, 4), port(2, -3, 4)
    moved = []
    for ports in (both, more, less):
        bench.ports[BLUE], bench.moved = (ports,), {}
        bench.reconcile()
        moved.append(bench.moved)

    left = frozenset(backend.ip for backend in (less.backends[0], less.backends[2]))
    assert moved == [{both: frozenset(each.ip for each in both.backends)}, {}, {more: left}]


def test_nothing_is_written_before_records_are_known(tmp_path: Path) -> None:
    """An attach during a start, with records that may lack services, changes no table."""
    bench = Bench(tmp_path, attachment(WEB))
    bench.ports[BLUE] = (port(2),)

    asyncio.run(bench.changed.emit(WEB))
    assert bench.calls == []
    bench.reconcile()
    bench.calls.clear()
    asyncio.run(bench.changed.emit(WEB))
    assert bench.calls == [("put", WEB)]  # the periodic check reads what is there


def test_flows_end_after_all_tables_are_written(tmp_path: Path) -> None:
    """Ending them takes the kernel longer; what failed is done by the next pass."""
    bench = Bench(tmp_path, attachment(WEB), attachment(API))
    bench.ports[BLUE] = (port(2, 3),)
    bench.reconcile()
    bench.ports[BLUE] = (port(2),)
    bench.flows_stay_in.add(WEB)
    assert bench.reconcile() == [("put", WEB), ("put", API)]
    assert (sorted(bench.flows), bench.wrote_after_flows) == ([WEB, API], False)

    bench.flows_stay_in.clear()
    bench.reconcile()
    assert bench.flows == [WEB]
    assert bench.tables.fault is None
    assert bench.moved == {port(2, 3): frozenset({Ip(bytes([10, 32, 0, 2]))})}


class FakeChoice(ConnectChoice):
    """Connections that wait for a backend that is gone."""

    losing: Any = None
    seen: Any = None

    async def unanswered(
        self, path: str, identity: tuple[int, int], losing: Any, after: Any
    ) -> list[Any]:
        """Note the ports; there is one connection."""
        self.losing, self.seen = [*losing], (path, identity, after)
        return [("a connection", "a backend")]


@pytest.mark.parametrize("error", [None, OSError(12, "no memory")])
def test_connections_that_nobody_answers_are_moved(tmp_path: Path, error: OSError | None) -> None:
    """When a backend goes, and at no other time; a failure is no fault of the table."""
    bench = Bench(tmp_path, attachment(WEB))
    choice = FakeChoice(
        cast("NodeContext", SimpleNamespace(kernel=bench, gossip=bench.tables._gossip)), "off"
    )
    bench.tables._at_connect = choice
    bench.move_error = error
    bench.ports[BLUE] = (port(2, 3, protocol="tcp"),)
    assert ("move", WEB) not in bench.reconcile()
    bench.ports[BLUE] = (port(2, 3, 4, protocol="tcp"),)
    assert ("move", WEB) not in bench.reconcile()
    bench.ports[BLUE] = (port(2, 4, protocol="tcp"),)
    assert ("move", WEB) in bench.reconcile()

    assert choice.losing == [port(2, 3, 4, protocol="tcp")]
    assert bench.tables.fault is None
    state = bench.tables._clients[WEB].written.state
    assert state == (b"moved" if error is None else b"")
