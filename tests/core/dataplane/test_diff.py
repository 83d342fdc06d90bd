from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.core.dataplane.operations import (
    DeleteLink,
    DeleteRow,
    PutLink,
    PutRow,
    applied,
    row_key,
)
from overlay.core.dataplane.state import (
    AddressRow,
    BarrierRow,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    RouteRow,
    Row,
    SandboxState,
    UnexpectedRow,
)
from overlay.model import Mac, Vni, parse_ip, parse_mac

MACS = [parse_mac(f"02:00:00:00:00:0{digit}") for digit in range(1, 4)]
IPS = [parse_ip(text) for text in ("10.0.0.2", "10.0.0.3", "fd00::2")]
VTEPS = [parse_ip(f"192.168.56.1{digit}") for digit in range(1, 4)]

macs, ips, vteps = st.sampled_from(MACS), st.sampled_from(IPS), st.sampled_from(VTEPS)
mtus = st.sampled_from([1400, 1450])
bridges = st.sampled_from(["br0", "br1"])
vxlans = st.sampled_from(["vxlan0", "vxlan1"])
altered = st.sampled_from([(), (), ("up",), ("neigh_suppress",)])


@st.composite
def desired_states(draw: st.DrawFn) -> SandboxState:
    """Generate states that a planner could produce.

    Masters exist, and no two rows share a key.
    """
    links: dict[str, Link] = {}
    for number in range(draw(st.integers(0, 2))):
        bridge = f"br{number}"
        links[bridge] = Bridge(bridge, draw(macs), draw(mtus))
        vni = Vni(draw(st.integers(5, 6)) + 10 * number)
        local = draw(st.sampled_from([*VTEPS[:2], parse_ip("fd01::1")]))
        port = draw(st.sampled_from([4789, 8472]))
        links[f"vxlan{number}"] = Vxlan(f"vxlan{number}", vni, local, port, draw(mtus), bridge)
    if links:
        for name in draw(st.sets(st.sampled_from(["p1", "p2", "p3"]))):
            links[name] = Port(name, draw(mtus), draw(bridges.filter(links.__contains__)))
    return SandboxState(links, draw(_rows(links)))


@st.composite
def actual_states(draw: st.DrawFn) -> SandboxState:
    """Generate states that a kernel could have after sabotage.

    Wrong kinds, no masters, foreign rows.
    """
    state = draw(desired_states())
    links = dict(state.links)
    for name, link in list(links.items()):
        match draw(st.integers(0, 5)):
            case 0:
                del links[name]
            case 1:
                links[name] = Bridge(name, draw(macs), draw(mtus))
            case 2 if isinstance(link, Vxlan | Port):
                links[name] = link._replace(master="")
            case 3:
                links[name] = link._replace(altered=draw(altered))
    kept: set[Row] = {row for row in state.rows if row.link in links}
    if "br0" in links:
        kept |= draw(st.sets(st.just(UnexpectedRow("br0", "00:11 dev br0 vlan 5", b"request"))))
    for name, link in links.items():
        if isinstance(link, Vxlan | Port) and link.master not in links:
            links[name] = link._replace(master="")
    return SandboxState(links, frozenset(kept))


def _rows(links: dict[str, Link]) -> st.SearchStrategy[frozenset[Row]]:
    names = sorted(links)
    on_bridges = st.sampled_from([name for name in names if name[:2] == "br"] or [""])
    on_vxlans = st.sampled_from([name for name in names if name[:5] == "vxlan"] or [""])
    row: st.SearchStrategy[Row] = st.one_of(
        st.builds(AddressRow, on_bridges, ips, st.sampled_from([16, 24])),
        st.builds(FdbRow, on_vxlans, macs, vteps),
        st.builds(FloodRow, on_vxlans, vteps),
        st.builds(GroupRow, st.just(Mac(b"\x01\0^\1\2\3")), on_vxlans, vteps),
        st.builds(BridgeFdbRow, on_vxlans, macs),
        st.builds(NeighborRow, on_bridges, ips, macs),
        st.builds(RouteRow, on_bridges, ips, st.sampled_from([0, 16]), ips),
        st.builds(BarrierRow, on_bridges, st.sampled_from([16, 24]), ips),
    )
    several = st.lists(row, max_size=12, unique_by=row_key)
    return several.map(lambda rows: frozenset(row for row in rows if row.link in links))


@given(desired_states(), actual_states())
def test_the_operations_lead_to_the_desired_state(
    desired: SandboxState, actual: SandboxState
) -> None:
    """From any actual state, in one pass; each operation is possible in turn."""
    after = applied(actual, diff(desired, actual, prune=True))

    assert desired == after
    assert diff(desired, after, prune=True) == []


@given(desired_states(), actual_states())
def test_without_pruning_desired_is_added_and_nothing_deleted(
    desired: SandboxState, actual: SandboxState
) -> None:
    """Unexpected rows stay unless they block a desired one."""
    after = applied(actual, diff(desired, actual, prune=False))

    assert desired.rows <= after.rows
    assert desired.links.items() <= after.links.items()
    assert actual.links.keys() <= after.links.keys()
    rebuilt = {
        operation.link.name
        for operation in diff(desired, actual, prune=False)
        if isinstance(operation, DeleteLink)
    }
    kept_keys = {row_key(row) for row in after.rows}
    assert all(row_key(row) in kept_keys or row.link in rebuilt for row in actual.rows)
    assert diff(desired, after, prune=False) == []


@pytest.mark.parametrize("seed", range(5))
def test_any_state_can_follow_any_other(seed: int) -> None:
    """A walk over many states always reaches the last one."""
    rng = Random(seed)
    states = [_random_state(rng) for _ in range(8)]
    actual = SandboxState()
    for _ in range(60):
        desired = rng.choice(states)
        actual = applied(actual, diff(desired, actual, prune=True))
        assert desired == actual


def _random_state(rng: Random) -> SandboxState:
    vtep = rng.choice(VTEPS)
    rows: set[Row] = {FloodRow("vxlan0", other) for other in VTEPS if rng.random() < 0.5}
    for mac in MACS:
        rows |= {FdbRow("vxlan0", mac, rng.choice(VTEPS)), BridgeFdbRow("vxlan0", mac)}
        rows.add(NeighborRow("br0", rng.choice(IPS), mac))
    unique = {row_key(row): row for row in sorted(rows, key=repr)}
    return SandboxState(
        {
            "br0": Bridge("br0", MACS[0], rng.choice([1400, 1450])),
            "vxlan0": Vxlan("vxlan0", Vni(rng.randint(5, 6)), vtep, 4789, 1450, "br0"),
        },
        frozenset(unique.values()),
    )


LINKS: dict[str, Link] = {
    "br0": Bridge("br0", MACS[0], 1450),
    "vxlan0": Vxlan("vxlan0", Vni(5), VTEPS[0], 4789, 1450, "br0"),
    "p1": Port("p1", 1450, "br0"),
}
ROWS: frozenset[Row] = frozenset(
    {
        NeighborRow("br0", IPS[0], MACS[1]),
        BridgeFdbRow("vxlan0", MACS[1]),
        FdbRow("vxlan0", MACS[1], VTEPS[1]),
        FloodRow("vxlan0", VTEPS[1]),
        AddressRow("br0", parse_ip("10.0.0.1"), 24),
    }
)


ADD_VXLAN = (
    "ip link add vxlan0 mtu 1450 master br0 type vxlan"
    " id 5 local 192.168.56.11 dstport 4789 nolearning"
)


def test_a_new_sandbox_is_built_from_bridge_to_neighbors() -> None:
    """Links before rows, flooding before forwarding, ARP answers last."""
    operations = diff(SandboxState(LINKS, ROWS), SandboxState(), prune=True)

    assert [str(operation) for operation in operations] == [
        "ip link add br0 address 02:00:00:00:00:01 mtu 1450 type bridge",
        ADD_VXLAN,
        "ip link set p1 mtu 1450 master br0",
        "ip address replace 10.0.0.1/24 dev br0",
        "bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.168.56.12 self",
        "bridge fdb replace 02:00:00:00:00:02 dev vxlan0 dst 192.168.56.12 self",
        "bridge fdb replace 02:00:00:00:00:02 dev vxlan0 master extern_learn",
        "ip neighbour replace 10.0.0.2 lladdr 02:00:00:00:00:02 nud permanent dev br0",
    ]


def test_rows_are_taken_down_in_the_opposite_order() -> None:
    """ARP answers stop before frames lose their route; links stay."""
    operations = diff(SandboxState(LINKS), SandboxState(LINKS, ROWS), prune=True)

    assert [str(operation) for operation in operations] == [
        "ip neighbour del 10.0.0.2 dev br0",
        "bridge fdb del 02:00:00:00:00:02 dev vxlan0 master",
        "bridge fdb del 02:00:00:00:00:02 dev vxlan0 dst 192.168.56.12 self",
        "bridge fdb del 00:00:00:00:00:00 dev vxlan0 dst 192.168.56.12 self",
        "ip address del 10.0.0.1/24 dev br0",
    ]


def test_a_link_takes_its_rows_with_it() -> None:
    """Rows of a deleted device are not deleted one by one."""
    operations = diff(SandboxState(), SandboxState(LINKS, ROWS), prune=True)

    assert [str(operation) for operation in operations] == [
        "ip link del p1",
        "ip link del vxlan0",
        "ip link del br0",
    ]


def test_a_row_that_is_replaced_is_not_deleted_as_well() -> None:
    """A moved container costs one put: a delete by its key would undo it."""
    moved = FdbRow("vxlan0", MACS[1], VTEPS[2])
    old = FdbRow("vxlan0", MACS[1], VTEPS[1])
    operations = diff(
        SandboxState(LINKS, frozenset({moved})), SandboxState(LINKS, frozenset({old})), prune=True
    )

    assert operations == [PutRow(moved)]


def test_an_address_of_another_prefix_length_is_deleted_first() -> None:
    """The kernel can't change a prefix length in place."""
    new, old = (AddressRow("br0", IPS[0], length) for length in (16, 24))
    operations = diff(
        SandboxState(LINKS, frozenset({new})), SandboxState(LINKS, frozenset({old})), prune=False
    )

    assert operations == [DeleteRow(old), PutRow(new)]


def test_a_vxlan_of_another_vni_is_replaced() -> None:
    """VNI, port and family can't change in place: all is put again."""
    other = LINKS["vxlan0"]._replace(vni=Vni(6))  # type: ignore[call-arg]
    actual = SandboxState({**LINKS, "vxlan0": other}, ROWS)
    operations = diff(SandboxState(LINKS, ROWS), actual, prune=True)

    assert operations[:2] == [DeleteLink(other), PutLink(LINKS["vxlan0"])]
    assert {operation.row for operation in operations[2:] if isinstance(operation, PutRow)} == {
        row for row in ROWS if row.link == "vxlan0"
    }


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (LINKS["br0"], Bridge("br0", MACS[0], 1400), "ip link set br0 mtu 1400"),
        (
            LINKS["vxlan0"],
            Vxlan("vxlan0", Vni(5), VTEPS[2], 4789, 1450, "br0"),
            "ip link set vxlan0 type vxlan local 192.168.56.13",
        ),
        (Port("p1", 1450, ""), LINKS["p1"], "ip link set p1 master br0"),
        (
            Bridge("br0", MACS[0], 1450, ("up",)),
            LINKS["br0"],
            "ip link set br0 # restores up",
        ),
    ],
)
def test_what_can_be_changed_in_place_is(before: Link, after: Link, text: str) -> None:
    """A change names only the attributes that differ."""
    desired = SandboxState({**LINKS, after.name: after})
    actual = SandboxState({**LINKS, before.name: before})

    assert [str(operation) for operation in diff(desired, actual, prune=True)] == [text]


def test_foreign_rows_go_first_and_only_when_pruning() -> None:
    """A foreign row may be in the place of a desired one."""
    strange = UnexpectedRow("vxlan0", "02:00:00:00:00:02 dev vxlan0 master permanent", b"r")
    desired = SandboxState(LINKS, frozenset({BridgeFdbRow("vxlan0", MACS[1])}))
    actual = SandboxState(LINKS, frozenset({strange}))

    assert diff(desired, actual, prune=True)[0] == DeleteRow(strange)
    assert str(DeleteRow(strange)) == f"bridge fdb del {strange.text}"
    assert DeleteRow(strange) not in diff(desired, actual, prune=False)


class Many(frozenset[Row]):
    """So many rows that an unnecessary comparison must be avoided."""

    def __sub__(self, _other: object) -> frozenset[Row]:
        raise AssertionError("every row was looked at")


def test_a_state_is_not_compared_with_itself() -> None:
    """An unchanged pass has one state on both sides, and does not walk it."""
    state = SandboxState({}, Many({FloodRow("vxlan0", VTEPS[0])}))

    assert diff(state, state, prune=True) == []
