"""Passes on the real kernel: which of them read it, and that those which don't are as exact."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from overlay import limits
from overlay.agent.dataplane import reconcile_pass
from overlay.agent.dataplane.reconcile_pass import compare, run_pass
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.operations import DeleteRow, Operation
from overlay.core.dataplane.planning import steps
from overlay.core.dataplane.planning.inputs import (
    LocalPort,
    PlanInput,
    PolicyRows,
    RemoteChanges,
    RemoteEndpoint,
)
from overlay.core.dataplane.planning.planned_rows import PlannedRows
from overlay.core.dataplane.port_security import port_rows
from overlay.core.dataplane.state import (
    FdbRow,
    HookRow,
    SandboxState,
    SourceRow,
    TargetRow,
    VerdictRow,
)
from overlay.errors import ConflictError
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox import veth
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, mac_for, mac_text, parse_ip
from tests.kernel.conftest import MTU, VNI, Host, World

pytestmark = pytest.mark.netns

TWO, NINE, TEN = parse_ip("10.32.0.2"), parse_ip("10.32.0.9"), parse_ip("10.32.0.10")
OTHER = NodeId(b"o" * 16)
NETWORK = Network(
    VNI, "blue", (Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1")),), NodeId(b"c" * 16)
)


def endpoint(ip: Ip) -> Endpoint:
    """Return an endpoint of that address."""
    return Endpoint(bytes(4) + ip, VNI, f"c{ip[3]}", mac_for(VNI, ip), (ip,))


class Node:
    """A host whose sandbox is passed over as the agent does."""

    def __init__(self, world: World) -> None:
        self.host: Host = world.host()
        self.host.sandbox.fast_path = FastPath()
        self.world = world
        self.runtime = SandboxRuntime(
            self.host.sandbox, self.host.sandbox.monitor(), asyncio.Lock()
        )
        self.ports: list[LocalPort] = []
        self.locals: list[Endpoint] = []
        self.remotes: list[Ip] = []
        self.policy: PolicyRows | None = None

    def given(self) -> PlanInput:
        """Return what the plan depends on."""
        return PlanInput(
            network=NETWORK,
            port=4789,
            local=self.host.underlay,
            mtu=MTU,
            ports=tuple(self.ports),
            locals=tuple(self.locals),
            remotes=tuple(
                RemoteEndpoint(OTHER, parse_ip("192.168.56.12"), endpoint(ip))
                for ip in self.remotes
            ),
            flood=(parse_ip("192.168.56.12"),),
            policy=self.policy,
        )

    def make_port(self, ip: Ip) -> None:
        """Make a container with an interface, as an attach does."""
        one = endpoint(ip)
        self.runtime.reconnected.add(f"p{ip[3]}")
        space = self.world.namespace(f"{self.host.name[-2:]}c{len(self.world.names)}")
        veth.attach_interface(
            self.host.sandbox,
            port_name=f"p{ip[3]}",
            bridge="br0",
            netns_fd=self.world.fd(space),
            ifname=None,
            mac=one.mac,
            addresses=[(ip, 16)],
            mtu=MTU,
            gateway=None,
        )

    def attach(self, ip: Ip) -> None:
        """Make a container and plan for it."""
        self.make_port(ip)
        self.ports.append(LocalPort(f"p{ip[3]}", 0, endpoint(ip).endpoint_id))
        self.locals.append(endpoint(ip))

    def passes(self, *, read: bool = False) -> tuple[int, int]:
        """Make a pass; return how many operations it took and how many failed."""
        done = run_pass(self.runtime, self.given(), prune=True, read=read)
        return done.operation_count, len(done.failures)

    def differences(self) -> list[str]:
        """Return how the kernel differs from the plan."""
        return [str(each) for each in compare(self.runtime, self.given())]


@pytest.fixture
def node(world: World) -> Iterator[Node]:
    """Return a node after its first pass, with one container."""
    node = Node(world)
    node.passes(read=True)
    node.attach(TWO)
    node.passes()
    assert node.differences() == []
    yield node
    node.runtime.monitor.close()


def test_rows_of_remote_endpoints_are_held_once(node: Node) -> None:
    """Where the kernel is read for 100,000 rows, memory would have them thrice else."""
    node.remotes.append(NINE)
    node.passes(read=True)

    runtime = node.runtime
    assert isinstance(runtime.desired.rows, PlannedRows)
    assert runtime.left is runtime.desired
    assert runtime.table is not None
    assert runtime.desired.rows.remote is runtime.table.rows


def test_a_pass_after_one_that_read_follows_changes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next pass starts from the state that was read and planned anew."""
    node.remotes = [NINE]
    node.passes()
    node.passes(read=True)
    compared: list[int] = []

    def noting(desired: SandboxState, actual: SandboxState, *, prune: bool) -> list[Operation]:
        compared.append(sum(isinstance(row, FdbRow) for row in desired.rows))
        return diff(desired, actual, prune=prune)

    monkeypatch.setattr(reconcile_pass, "diff", noting)
    changes = RemoteChanges(
        [RemoteEndpoint(OTHER, parse_ip("192.168.56.12"), endpoint(TEN))], is_whole=False
    )
    given = replace(node.given(), remotes=())
    assert run_pass(node.runtime, given, changes, prune=True, read=False).operation_count == 3
    assert compared == [1]  # of two
    node.remotes.append(TEN)
    assert node.differences() == []


def test_only_the_first_pass_reads(node: Node) -> None:
    """New records and a new port are programmed exactly, from what the pass before left."""
    node.remotes.append(NINE)
    assert node.passes() == (3, 0)
    node.attach(TEN)
    node.remotes.append(parse_ip("10.32.0.11"))
    node.passes()

    assert node.differences() == []
    assert node.passes() == (0, 0)
    assert node.runtime.reads == 1


def test_a_port_made_anew_under_its_name_is_programmed_anew(node: Node) -> None:
    """A container that came back within one pass has all that the old one had."""
    rows = port_rows(0, node.ports[0].name, node.locals[0])
    assert node.host.sandbox.apply([DeleteRow(row) for row in rows]) == []
    veth.detach_interface(node.host.sandbox, "p2")
    node.make_port(TWO)
    assert node.differences() != []

    node.passes()

    assert node.runtime.reads == 1
    assert node.differences() == []


def test_what_was_altered_is_put_right_by_a_pass_that_reads(node: Node) -> None:
    """A pass trusts what the one before left; told to doubt it, it finds what is missing."""
    node.world.run(node.host.sandbox.name, "ip", "address", "del", "10.32.0.1/16", "dev", "br0")
    assert node.passes() == (0, 0)
    node.remotes.append(NINE)
    done = run_pass(node.runtime, node.given(), prune=True, read=True)
    assert (done.operation_count, done.repair_count, done.has_drifted) == (4, 1, True)
    node.remotes.append(parse_ip("10.32.0.12"))
    assert not run_pass(node.runtime, node.given(), prune=True, read=True).has_drifted
    assert node.differences() == []


def test_after_a_failure_the_next_pass_reads(node: Node) -> None:
    """A port that is not there fails; once it is no longer wanted a pass reads and is content."""
    node.ports.append(LocalPort("p77", 0))
    assert node.passes()[1] == 1
    del node.ports[-1]
    reads = node.runtime.reads
    assert node.passes()[1] == 0
    assert node.runtime.reads == reads + 1
    assert node.differences() == []


def test_a_start_is_no_drift(node: Node) -> None:
    """Differences that the first pass finds are no changes since a pass before."""
    node.runtime.left = None
    node.remotes.append(NINE)
    done = run_pass(node.runtime, node.given(), prune=True, read=True)
    assert (done.operation_count > 0, done.has_drifted) == (True, False)


def test_without_pruning_what_is_surplus_is_remembered(node: Node) -> None:
    """A pass that may not prune leaves a row; the first that may removes it without reading."""
    node.remotes.append(NINE)
    node.passes()
    node.remotes.remove(NINE)
    done = run_pass(node.runtime, node.given(), prune=False, read=False)
    assert done.operation_count == 0
    assert node.runtime.left != node.runtime.desired
    assert node.passes() == (3, 0)
    assert node.runtime.reads == 1
    assert node.differences() == []


def test_nothing_outlives_a_port_that_a_pass_removes(node: Node) -> None:
    """Table entries of a port are removed with it, in the same pass."""
    node.ports.clear()
    node.locals.clear()
    node.passes()
    assert node.runtime.reads == 1
    assert node.differences() == []


CLOSED = PolicyRows((VerdictRow(0, 0, 0, 0, 0, allow=False),))


def test_ports_are_on_no_bridge_where_policies_cannot_be_applied(node: Node) -> None:
    """A kernel without eBPF has no program that could apply them; `status` says so."""
    node.policy, fast_path, node.host.sandbox.fast_path = CLOSED, node.host.sandbox.fast_path, None
    node.runtime.without_programs = "no eBPF"
    node.passes(read=True)

    assert node.runtime.left is not None
    port = node.runtime.left.links["p2"]
    assert isinstance(port, Port)
    assert port.master == ""
    assert node.differences() == []
    (fault,) = node.runtime.faults("blue")
    assert fault.text.startswith("the ports of network blue are shut on this host, because")
    assert fault.text.endswith(": no eBPF")
    with pytest.raises(ConflictError, match="network blue is shut on this host"):
        node.runtime.require_usable("blue")
    node.host.sandbox.fast_path = fast_path
    node.passes(read=True)
    assert node.differences() == []
    assert [*node.runtime.faults("blue")] == []


def test_rows_of_policies_that_fail_are_reported(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel denies what is new meanwhile; a pass that succeeds ends the fault."""
    node.policy = CLOSED
    with monkeypatch.context() as patch:
        patch.setattr(limits, "POLICY_VERDICTS_MAX", 0)
        node.passes()
    (fault,) = node.runtime.faults("blue")

    assert fault.text.startswith("network blue allows nothing new on this host, because its polic")
    node.passes()
    assert [*node.runtime.faults("blue")] == []
    assert node.differences() == []
    node.policy = PolicyRows(CLOSED.rows, fault="too many")
    node.passes()
    assert [each.text[-8:] for each in node.runtime.faults("blue")] == ["too many"]


def test_a_fast_path_that_is_switched_off_leaves_no_hook(node: Node) -> None:
    """The earlier agent's programs run until the first pass; those of policies then only check."""
    before = node.host.sandbox.fast_path
    assert before is not None
    before.close()
    node.host.sandbox.fast_path, node.runtime.redirects = FastPath(), False
    assert any("fast path del" in each for each in node.differences())
    node.passes(read=True)
    assert node.runtime.left is not None
    assert not any(isinstance(row, HookRow | SourceRow) for row in node.runtime.left.rows)
    assert node.differences() == []
    node.policy = CLOSED
    node.passes()
    rows = node.runtime.left.rows
    assert {row.is_policed for row in rows if isinstance(row, HookRow)} == {True}
    assert not any(isinstance(row, SourceRow | TargetRow) for row in rows)
    assert node.differences() == []


def test_the_end_of_a_container_is_no_repair(node: Node) -> None:
    """Nobody changed what overlayd owns; a row that somebody did change counts beside it."""
    veth.detach_interface(node.host.sandbox, "p2")
    done = run_pass(node.runtime, node.given(), prune=True, read=True)
    assert str(done.failures[0].operation).startswith("ip link set p2 ")
    assert (done.repair_count, done.has_drifted) == (0, False)

    node.ports.clear()
    node.locals.clear()
    node.passes()
    mac = mac_for(VNI, NINE)
    row = FdbRow("vxlan0", mac, parse_ip("192.168.56.12"))
    node.remotes.append(NINE)
    node.passes()
    node.host.sandbox.apply([DeleteRow(row)])
    done = run_pass(node.runtime, node.given(), prune=True, read=True)
    assert (done.repair_count, done.has_drifted) == (1, True)


def test_passes_that_follow_changes_are_as_exact(node: Node) -> None:
    """Remote endpoints come, change and go by what the records say of them alone."""
    vtep = parse_ip("192.168.56.12")

    def follow(*present: Endpoint, gone: Ip | None = None) -> int:
        changes = RemoteChanges(
            [RemoteEndpoint(OTHER, vtep, each) for each in present],
            [] if gone is None else [(OTHER, endpoint(gone).endpoint_id)],
            is_whole=False,
        )
        given = replace(node.given(), remotes=())
        done = run_pass(node.runtime, given, changes, prune=True, read=False)
        assert done.failures == []
        assert node.differences() == []
        return done.operation_count

    node.remotes = [NINE]
    assert follow(endpoint(NINE)) == 3
    node.remotes = [NINE, TEN]
    assert follow(endpoint(TEN)) == 3
    assert follow(endpoint(TEN)) == 0
    node.remotes = [TEN]
    assert follow(gone=NINE) == 3
    node.attach(TEN)  # here as well: the remote one loses address and MAC
    assert follow() > 3
    assert node.runtime.reads == 1
    assert not run_pass(node.runtime, node.given(), prune=True, read=True).has_drifted
    assert node.differences() == []


@pytest.mark.parametrize("read", [True, False])
def test_links_and_records_may_change_at_once(node: Node, *, read: bool) -> None:
    """A new endpoint and a new MTU, in one pass, are both in the kernel after it."""
    node.remotes = [NINE]
    node.passes(read=True)
    node.remotes = [TEN]
    given = replace(node.given(), mtu=MTU - 100)
    changes = RemoteChanges(given.remotes, [(OTHER, endpoint(NINE).endpoint_id)], is_whole=False)
    run_pass(node.runtime, given, changes, prune=True, read=read)

    assert compare(node.runtime, given) == []


def test_a_pass_that_reads_holds_no_copies_of_planned_rows(node: Node) -> None:
    """It notes which of them the kernel has, and repairs one that is missing or another."""
    node.remotes = [NINE, TEN]
    node.passes()
    table = node.runtime.table
    node.passes(read=True)
    assert table is not None
    assert node.runtime.table is table
    assert isinstance(node.host.sandbox.read(table.rows).rows, PlannedRows)

    mac = mac_text(mac_for(VNI, NINE))
    node.world.run(node.host.sandbox.name, "bridge", "fdb", "del", mac, "dev", "vxlan0", "self")
    node.world.run(
        node.host.sandbox.name, "bridge", "fdb", "add", "02:00:00:00:00:99", "dev", "vxlan0",
        "dst", "192.168.56.99", "self", "permanent",
    )  # fmt: skip
    assert node.passes(read=True) == (2, 0)
    assert node.differences() == []


@pytest.mark.parametrize("prune", [True, False])
def test_what_is_missing_is_put_in_portions(
    node: Node, monkeypatch: pytest.MonkeyPatch, *, prune: bool
) -> None:
    """In several rounds with the kernel, beside rows that are another's or must be replaced."""
    monkeypatch.setattr(steps, "PORTION", 1)
    node.remotes = [NINE, TEN]
    assert run_pass(node.runtime, node.given(), prune=prune, read=True).failures == []
    assert node.differences() == []
    sandbox, mac = node.host.sandbox.name, mac_text(mac_for(VNI, NINE))
    node.world.run(sandbox, "ip", "neighbour", "flush", "dev", "br0", "nud", "permanent")
    node.world.run(
        sandbox, "bridge", "fdb", "replace", mac, "dev", "vxlan0", "dst", "192.168.56.99", "self",
        "permanent",
    )  # fmt: skip
    done = run_pass(node.runtime, node.given(), prune=prune, read=True)

    assert (done.operation_count, done.repair_count, done.failures) == (3, 3, [])
    assert node.differences() == []
    assert node.runtime.left is node.runtime.desired


def test_without_pruning_and_surplus_no_rows_are_held(node: Node) -> None:
    """A start with 50,000 remote endpoints remembers the plan, not 150,000 rows."""
    node.remotes = [NINE]
    run_pass(node.runtime, node.given(), prune=False, read=True)
    assert node.runtime.left is node.runtime.desired
    node.remotes = [NINE, TEN]
    run_pass(node.runtime, node.given(), prune=False, read=False)
    assert node.runtime.left is node.runtime.desired
    assert node.differences() == []
