"""The table of remote endpoints: whatever changes, it has the rows of one that is made anew."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteChanges, RemoteEndpoint
from overlay.core.dataplane.planning.links import natively
from overlay.core.dataplane.planning.planned_rows import (
    PlannedRows,
    SeenRows,
    has_neighbor,
    neighbor_count,
    own_rows,
)
from overlay.core.dataplane.planning.planner import Abilities, basis_of, plan_sandbox
from overlay.core.dataplane.planning.remote_table import table_of, updated
from overlay.core.dataplane.state import FdbRow, NeighborRow, Row, SandboxState
from overlay.core.fabric import NO_FABRIC, FabricMac, FabricNeighbor, FabricRows
from overlay.model import (
    ISOLATED_LABEL,
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
)

VNI = Vni(700)
NODES = [NodeId(bytes([66 + number]) * 16) for number in range(3)]
LOCAL = Ip(bytes([192, 168, 56, 11]))
VTEPS = [Ip(bytes([192, 168, 56, 12])), Ip(bytes([192, 168, 56, 13])), LOCAL, Ip(bytes(15) + b"\1")]
SUBNETS = (
    Subnet(Ip(bytes([10, 0, 0, 0])), 24, Ip(bytes([10, 0, 0, 1]))),
    Subnet(Ip(b"\xfd" + bytes(15)), 64, Ip(b"\xfd" + bytes(14) + b"\1")),
    Subnet(Ip(bytes([10, 0, 1, 0])), 24, Ip(bytes([10, 0, 1, 1]))),
)
# Few addresses, so that they are claimed again and again: gateways and one outside are among them.
IPS = [
    *(Ip(bytes([10, 0, third, last])) for third in (0, 1) for last in (1, 2, 3)),
    Ip(b"\xfd" + bytes(14) + b"\2"),
    Ip(bytes([10, 9, 9, 9])),
]
MACS = [gateway_mac(VNI, 0), *(mac_for(VNI, ip) for ip in IPS[1:4])]
FABRIC = FabricRows(
    frozenset(FabricMac(VNI, mac, VTEPS[0]) for mac in MACS),
    frozenset(FabricNeighbor(VNI, ip, mac) for ip in IPS[1:3] for mac in MACS[1:2]),
)


class Step(NamedTuple):
    """The changes from one plan to the next."""

    present: list[RemoteEndpoint]
    gone: list[tuple[NodeId, bytes]]
    locals: tuple[Endpoint, ...]
    owner: NodeId | None
    base: str
    is_whole: bool  # all endpoints are given, not the changes


def _endpoint(serial: int, ips: list[Ip], mac: Mac | None) -> Endpoint:
    chosen = mac_for(VNI, ips[0]) if mac is None else mac
    return Endpoint(serial.to_bytes(8, "big"), VNI, f"c{serial}", chosen, tuple(ips))


REMOTE = RemoteEndpoint(NODES[0], VTEPS[0], _endpoint(2, [IPS[2]], None))
serials = st.integers(0, 4)
endpoints = st.builds(
    _endpoint,
    serials,
    st.lists(st.sampled_from([*3 * IPS[1:3], *IPS]), min_size=1, max_size=2, unique=True),
    st.none() | st.sampled_from(MACS),
)
vteps = st.sampled_from([*4 * VTEPS[:2], *VTEPS])
remotes = st.builds(RemoteEndpoint, st.sampled_from(NODES), vteps, endpoints)
steps = st.builds(
    Step,
    st.lists(remotes, max_size=4),
    st.lists(st.tuples(st.sampled_from(NODES), serials.map(lambda n: n.to_bytes(8, "big")))),
    st.just(()) | st.lists(endpoints, max_size=2, unique_by=lambda each: each.mac).map(tuple),
    st.none() | st.sampled_from(NODES),
    st.sampled_from(["vxlan"] * 9 + ["vxalt"]),
    st.booleans(),
)


def _given(step: Step, known: dict[tuple[NodeId, bytes], RemoteEndpoint]) -> PlanInput:
    """Return the input after a step, with all remote endpoints."""
    for key in step.gone:
        known.pop(key, None)
    for remote in step.present:
        known[remote.origin, remote.endpoint.endpoint_id] = remote
    return PlanInput(
        Network(VNI, "blue", SUBNETS, NODES[0]),
        4789,
        LOCAL,
        1450,
        locals=step.locals,
        remotes=tuple(known.values()),
        owner_of=lambda _vni, _ip: step.owner,
        device_base=step.base,
        fabric=FABRIC,
    )


def _changes(step: Step, full: PlanInput) -> RemoteChanges:
    if step.is_whole:
        return RemoteChanges(full.remotes)
    return RemoteChanges(step.present, step.gone, is_whole=False)


@given(st.lists(steps, min_size=1, max_size=8))
def test_any_changes_give_the_rows_of_a_plan_made_anew(sequence: list[Step]) -> None:
    """The same rows, and the same operations from the plan before, whatever has changed.

    Also where addresses are claimed several times, or by local endpoints, and as owners change.
    """
    known: dict[tuple[NodeId, bytes], RemoteEndpoint] = {}
    first = _given(Step([], [], (), None, "vxlan", is_whole=True), known)
    table, before = table_of(first), plan_sandbox(first)
    own: frozenset[Row] = frozenset(own_rows(plan_sandbox(first, table)))
    for step in sequence:
        full = _given(step, known)
        changes = _changes(step, full)
        table, moved = updated(table, replace(full, remotes=()), changes)
        followed, anew = plan_sandbox(replace(full, remotes=()), table), plan_sandbox(full)

        assert followed == anew
        assert len(followed.rows) == len(anew.rows) == len(set(followed.rows))
        assert all(row in followed.rows for row in anew.rows)
        neighbors = {row for row in anew.rows if isinstance(row, NeighborRow)}
        assert neighbor_count(followed) == len(neighbors)
        assert all(has_neighbor(followed, row.link, row.ip) for row in neighbors)
        if moved is not None:
            small = (
                SandboxState(followed.links, frozenset(own_rows(followed) | moved.added)),
                SandboxState(before.links, frozenset(own | moved.removed)),
            )
            for prune in (True, False):
                assert diff(*small, prune=prune) == diff(anew, before, prune=prune)
        before, own = anew, frozenset(own_rows(followed))


@given(
    first=steps,
    second=steps,
    fabric=st.sampled_from([NO_FABRIC, FABRIC]),
    is_isolated=st.booleans(),
)
@example(
    first=Step([], [], (_endpoint(1, [IPS[1]], None),), None, "vxlan", is_whole=True),
    second=Step([REMOTE], [], (), None, "vxlan", is_whole=False),
    fabric=NO_FABRIC,
    is_isolated=True,
)
def test_a_plan_holds_while_its_basis_is_the_same(
    first: Step, second: Step, fabric: FabricRows, *, is_isolated: bool
) -> None:
    """Whatever remote endpoints do; where more than their rows follows from them there is none."""
    labels = (ISOLATED_LABEL,) if is_isolated else ()
    first, second = (
        each._replace(
            locals=tuple(replace(one, labels=labels) for one in first.locals),
            present=[
                one._replace(endpoint=replace(one.endpoint, labels=labels)) for one in each.present
            ],
            base=first.base,
        )
        for each in (first, second)
    )
    abilities = Abilities(fast_path=True, native=True, guarded=True)
    known: dict[tuple[NodeId, bytes], RemoteEndpoint] = {}

    def input_of(step: Step) -> PlanInput:
        return natively(replace(_given(step, known), fabric=fabric), allowed=True)

    before = input_of(first)
    table = table_of(before)
    plan = plan_sandbox(replace(before, remotes=()), table, **abilities._asdict())
    after = input_of(second)
    table, moved = updated(table, replace(after, remotes=()), _changes(second, after))
    assert moved is not None
    basis = basis_of(before, abilities)
    if basis is None:
        assert fabric.macs or (is_isolated and first.locals)
    else:
        assert basis == basis_of(after, abilities)
        assert plan == plan_sandbox(after, **abilities._asdict())
    others = replace(after, flood=(VTEPS[0],)), replace(after, locals=(_endpoint(4, IPS, None),))
    assert all(basis != basis_of(each, abilities) or basis is None for each in others)
    assert basis is None or basis != basis_of(after, abilities._replace(fast_path=False))


def test_planned_rows_are_a_set_like_any_other() -> None:
    """The users of rows need not know how they are held."""
    remote = RemoteEndpoint(NODES[0], VTEPS[0], _endpoint(1, [IPS[1]], None))
    full = _given(Step([remote], [], (), None, "vxlan", is_whole=True), {})
    rows = plan_sandbox(full, table_of(full)).rows
    plain = plan_sandbox(full).rows
    mac = remote.endpoint.mac

    assert isinstance(rows, PlannedRows)
    assert isinstance(plain, frozenset)
    assert rows == plain
    assert plain == rows
    assert not rows - plain
    assert not plain - rows
    assert FdbRow("vxlan0", mac, VTEPS[0]) in rows
    assert FdbRow("vxlan0", mac, VTEPS[1]) not in rows
    assert FdbRow("vxlan9", mac, VTEPS[0]) not in rows
    assert {FdbRow("vxlan0", mac, VTEPS[0])} & rows == {FdbRow("vxlan0", mac, VTEPS[0])}


@given(steps, st.data())
def test_rows_that_were_seen_are_those_that_were_there(step: Step, data: st.DataObject) -> None:
    """Whether all planned rows are there, some, or none, and whatever else is."""
    full = _given(step, {})
    planned = table_of(full).rows
    every = sorted(planned, key=repr)
    there = set(data.draw(st.lists(st.sampled_from(every)) if every else st.just([])))
    there = set(every) if data.draw(st.booleans()) else there
    there |= {FdbRow("vxlan0", mac, VTEPS[1]) for mac in data.draw(st.sets(st.sampled_from(MACS)))}
    there |= {FdbRow("vxlan9", mac, VTEPS[0]) for mac in data.draw(st.sets(st.sampled_from(MACS)))}
    seen = SeenRows(planned)
    for row in [*there, *there]:  # a dump may have a row twice
        seen.add(row)

    assert seen.count == len(there)
    assert seen.rows() == there
    assert there == seen.rows()
    assert isinstance(seen.rows(), PlannedRows) == bool(every and set(every) <= there)
