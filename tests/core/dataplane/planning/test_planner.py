from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Bridge, Port, Vxlan
from overlay.core.dataplane.operations import applied, row_key
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.segments import bridge_name, segment_count
from overlay.core.dataplane.port_security import DEFAULT_TARGET_MAC, labels_of_allowed
from overlay.core.dataplane.state import (
    AddressRow,
    BarrierRow,
    BoundaryRow,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GroupRow,
    HookRow,
    InterceptRow,
    NeighborRow,
    RouteRow,
    Row,
    SandboxState,
    SourceRow,
    TargetRow,
)
from overlay.core.fabric import FabricFlood
from overlay.model import (
    HOST_LABEL,
    PORT_SECURITY_OFF_LABEL,
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
    parse_ip,
)

A, B, C = (NodeId(bytes([65 + index]) * 16) for index in range(3))
FOUR = Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1"))
FIVE = Subnet(parse_ip("10.0.1.0"), 24, parse_ip("10.0.1.1"))
SIX = Subnet(parse_ip("fd00::"), 64, parse_ip("fd00::1"))
VNI = Vni(700)
LOCAL, VTEP_B, VTEP_C = (parse_ip(f"192.168.56.{host}") for host in (11, 12, 13))


def given_input(*subnets: Subnet, **more: object) -> PlanInput:
    """Return the input for a network with these subnets on the host at .11."""
    plain = PlanInput(Network(VNI, "blue", subnets, A), 4789, LOCAL, 1450)
    return replace(plain, **more)  # type: ignore[arg-type]


def endpoint(serial: int, *texts: str, mac: Mac | None = None) -> Endpoint:
    """Return an endpoint with these addresses."""
    ips = tuple(parse_ip(text) for text in texts)
    chosen = mac_for(VNI, ips[0]) if mac is None else mac
    return Endpoint(serial.to_bytes(8, "big"), VNI, f"c{serial}", chosen, ips)


def test_a_network_is_a_bridge_with_gateway_and_vxlan() -> None:
    """Even without endpoints, so that the sandbox floods and routes at once."""
    state = plan_sandbox(
        given_input(FOUR, flood=(LOCAL, VTEP_B, VTEP_B), ports=(LocalPort("p1", 0),))
    )

    assert state == SandboxState(
        {
            "br0": Bridge("br0", gateway_mac(VNI, 0), 1450),
            "vxlan0": Vxlan("vxlan0", VNI, LOCAL, 4789, 1450, "br0"),
            "p1": Port("p1", 1450, "br0"),
        },
        frozenset({AddressRow("br0", FOUR.gateway, 24), FloodRow("vxlan0", VTEP_B)}),
    )


def test_a_remote_endpoint_has_three_rows() -> None:
    """For its VTEP, its bridge port, and its ARP answer."""
    remote = endpoint(1, "10.0.0.9")
    state = plan_sandbox(given_input(FOUR, remotes=(RemoteEndpoint(B, VTEP_B, remote),)))

    assert state.rows == {
        AddressRow("br0", FOUR.gateway, 24),
        FdbRow("vxlan0", remote.mac, VTEP_B),
        BridgeFdbRow("vxlan0", remote.mac),
        NeighborRow("br0", parse_ip("10.0.0.9"), remote.mac),
    }


def test_a_group_goes_to_the_hosts_that_want_it() -> None:
    """Of all segments; one that no other host wants goes nowhere, and outside VTEPs get all."""
    one, two = Mac(b"\x01\0^\1\2\3"), Mac(b"33\0\7\0\7")
    groups = ((one, frozenset({VTEP_B, parse_ip("fd56::12")})), (two, frozenset[Ip]()))
    given = replace(given_input(FOUR, FIVE, flood=(VTEP_B,)), groups=groups)
    outside = parse_ip("192.0.2.9")
    fabric = replace(given.fabric, floods=frozenset({FabricFlood(VNI, outside)}))

    def planned(given: PlanInput) -> set[GroupRow]:
        return {row for row in plan_sandbox(given).rows if isinstance(row, GroupRow)}

    nowhere = {GroupRow(two, f"vxlan{segment}", Ip(bytes(4))) for segment in (0, 1)}
    wanted = {GroupRow(one, f"vxlan{segment}", VTEP_B) for segment in (0, 1)}
    assert planned(given) == wanted | nowhere
    extra = {GroupRow(mac, "vxlan0", outside) for mac in (one, two)}
    both = planned(replace(given, fabric=fabric))
    assert both == wanted | extra | {GroupRow(two, "vxlan1", Ip(bytes(4)))}


def test_rows_of_one_link_share_its_name() -> None:
    """A string for each of 100,000 rows would need as much memory again."""
    remotes = tuple(RemoteEndpoint(B, VTEP_B, endpoint(n, f"10.0.0.{n}")) for n in range(2, 9))
    rows = plan_sandbox(given_input(FOUR, remotes=remotes)).rows

    many = [row.link for row in rows if isinstance(row, (FdbRow, BridgeFdbRow, NeighborRow))]
    assert len(many) == 21
    assert len({id(text) for text in many}) == 2


def test_two_subnets_of_one_family_are_two_segments() -> None:
    """Each has a bridge and a VNI, and its rows are on its own."""
    remotes = (RemoteEndpoint(B, VTEP_B, endpoint(1, "10.0.1.9")),)
    ports = (LocalPort("p1", 1),)
    state = plan_sandbox(given_input(FOUR, FIVE, remotes=remotes, flood=(VTEP_B,), ports=ports))

    assert state.links["vxlan1"] == Vxlan("vxlan1", Vni(701), LOCAL, 4789, 1450, "br1")
    assert state.links["p1"] == Port("p1", 1450, "br1")
    assert AddressRow("br1", FIVE.gateway, 24) in state.rows
    assert {row.link for row in state.rows if isinstance(row, FloodRow)} == {"vxlan0", "vxlan1"}
    assert {row.link for row in state.rows if isinstance(row, FdbRow)} == {"vxlan1"}
    assert {row.link for row in state.rows if isinstance(row, NeighborRow)} == {"br1"}


def test_the_two_families_share_a_segment() -> None:
    """A dual-stack container has both addresses on its one interface."""
    both = endpoint(1, "10.0.0.9", "fd00::9")
    state = plan_sandbox(given_input(FOUR, SIX, remotes=(RemoteEndpoint(B, VTEP_B, both),)))

    assert sorted(state.links) == ["br0", "vxlan0"]
    assert state.rows == {
        AddressRow("br0", FOUR.gateway, 24),
        AddressRow("br0", SIX.gateway, 64),
        FdbRow("vxlan0", both.mac, VTEP_B),
        BridgeFdbRow("vxlan0", both.mac),
        NeighborRow("br0", both.ips[0], both.mac),
        NeighborRow("br0", both.ips[1], both.mac),
    }


def test_segments_are_counted_per_family() -> None:
    """The n-th subnets of both families share bridge n."""
    network = Network(VNI, "blue", (FOUR, FIVE, SIX), A)

    assert [bridge_name(network, index) for index in range(3)] == ["br0", "br1", "br0"]
    assert segment_count(network) == 2


def test_the_owner_of_an_address_wins_it_on_every_node() -> None:
    """Of two origins that claim an address, its owner gets the rows."""
    one, other = endpoint(1, "10.0.0.9"), endpoint(2, "10.0.0.9")
    claims = (RemoteEndpoint(B, VTEP_B, one), RemoteEndpoint(C, VTEP_C, other))

    for owner, winner in ((B, VTEP_B), (C, VTEP_C), (None, VTEP_B)):
        for remotes in (claims, claims[::-1]):
            state = plan_sandbox(
                given_input(FOUR, remotes=remotes, owner_of=lambda _vni, _ip, owner=owner: owner)
            )
            (row,) = (row for row in state.rows if isinstance(row, FdbRow))
            assert row.vtep == winner


def test_a_chosen_mac_loses_to_a_derived_one() -> None:
    """An endpoint that copies another's MAC does not get its frames."""
    honest = endpoint(9, "10.0.0.9")
    copied = endpoint(1, "10.0.0.8", mac=honest.mac)
    remotes = (RemoteEndpoint(B, VTEP_B, copied), RemoteEndpoint(C, VTEP_C, honest))

    state = plan_sandbox(given_input(FOUR, remotes=remotes))
    assert [row.vtep for row in state.rows if isinstance(row, FdbRow)] == [VTEP_C]


def test_a_claim_on_a_local_endpoints_address_gets_no_row_here() -> None:
    """A row for it would conflict with what the local port learns."""
    mine = endpoint(9, "10.0.0.9")
    state = plan_sandbox(
        given_input(
            FOUR, locals=(mine,), remotes=(RemoteEndpoint(B, VTEP_B, endpoint(1, "10.0.0.9")),)
        )
    )

    assert state.rows == {AddressRow("br0", FOUR.gateway, 24)}


def test_addresses_that_no_container_can_have_get_no_row() -> None:
    """Outside every subnet, or the gateway's own."""
    remotes = (
        RemoteEndpoint(B, VTEP_B, endpoint(1, "10.9.0.9")),
        RemoteEndpoint(B, VTEP_B, endpoint(2, "10.0.0.1")),
        RemoteEndpoint(B, VTEP_B, endpoint(3, "fd00::9")),
    )

    assert plan_sandbox(given_input(FOUR, remotes=remotes)).rows == {
        AddressRow("br0", FOUR.gateway, 24)
    }


def test_a_claim_on_a_gateways_mac_gets_no_row() -> None:
    """Nor does its address: every host is the gateway of its own containers."""
    for segment in range(2):
        hostile = endpoint(1, "10.0.0.9", "10.0.1.9", mac=gateway_mac(VNI, segment))
        state = plan_sandbox(given_input(FOUR, FIVE, remotes=(RemoteEndpoint(B, VTEP_B, hostile),)))

        assert state == plan_sandbox(given_input(FOUR, FIVE))


def test_a_gateways_mac_wins_no_address_from_another_endpoint() -> None:
    """Not even where its claim has the lower endpoint id, or owns the address."""
    hostile = endpoint(1, "10.0.0.9", mac=gateway_mac(VNI, 0))
    honest = RemoteEndpoint(C, VTEP_C, endpoint(9, "10.0.0.9"))
    both = given_input(
        FOUR, remotes=(RemoteEndpoint(B, VTEP_B, hostile), honest), owner_of=lambda _vni, _ip: B
    )

    assert plan_sandbox(both) == plan_sandbox(given_input(FOUR, remotes=(honest,)))


def test_a_claim_on_a_local_endpoints_mac_gets_no_row_here() -> None:
    """A neighbor row would send frames for its address to the local endpoint."""
    mine = endpoint(9, "10.0.0.9")
    copied = RemoteEndpoint(B, VTEP_B, endpoint(1, "10.0.0.8", mac=mine.mac))

    assert plan_sandbox(given_input(FOUR, locals=(mine,), remotes=(copied,))).rows == {
        AddressRow("br0", FOUR.gateway, 24)
    }


def test_a_local_endpoint_with_a_gateways_mac_has_a_closed_port() -> None:
    """It may send nothing, and the fast path still delivers to the gateway."""
    mine = endpoint(9, "10.0.0.9", mac=gateway_mac(VNI, 0))
    ports = (LocalPort("p1", 0, mine.endpoint_id),)
    given = given_input(FOUR, ports=ports, locals=(mine,))
    state = plan_sandbox(given, fast_path=True, guarded=True)

    assert [row for row in state.rows if row.link == "p1"] == []
    assert TargetRow(gateway_mac(VNI, 0), 0, "br0") in state.rows


def test_every_sandbox_has_a_boundary() -> None:
    """Also one without containers; not where the kernel has no nftables."""
    given = given_input(FOUR, SIX)

    assert plan_sandbox(given, guarded=True).rows - plan_sandbox(given).rows == {BoundaryRow()}


def test_queries_for_other_resolvers_are_intercepted() -> None:
    """On every bridge, for the families of its subnets; not where the kernel cannot."""
    given = given_input(FOUR, SIX, FIVE)

    found = plan_sandbox(given, intercepting=True).rows - plan_sandbox(given).rows

    assert found == {InterceptRow("br0", 4), InterceptRow("br0", 16), InterceptRow("br1", 4)}


def test_vteps_of_the_other_family_and_our_own_are_left_out() -> None:
    """A VXLAN device has one family; a claim to our VTEP is no remote."""
    six = parse_ip("fd01::5")
    remotes = (
        RemoteEndpoint(B, six, endpoint(1, "10.0.0.8")),
        RemoteEndpoint(C, LOCAL, endpoint(2, "10.0.0.9")),
    )

    state = plan_sandbox(given_input(FOUR, remotes=remotes, flood=(six, LOCAL)))
    assert state.rows == {AddressRow("br0", FOUR.gateway, 24)}


hosts = st.integers(2, 12)
remote_lists = st.lists(
    st.builds(
        lambda origin, serial, host, other: RemoteEndpoint(
            origin,
            {A: LOCAL, B: VTEP_B, C: VTEP_C}[origin],
            endpoint(
                serial,
                f"10.0.0.{host}",
                f"fd00::{host}",
                mac=None if other is None else mac_for(VNI, Ip(bytes([10, 0, 0, other]))),
            ),
        ),
        st.sampled_from([B, C]),
        st.integers(0, 5),
        hosts,
        st.none() | hosts,
    ),
    max_size=10,
)


@given(remote_lists, remote_lists, st.randoms(use_true_random=False))
def test_any_records_give_a_consistent_plan_that_diff_reaches(
    before: list[RemoteEndpoint], after: list[RemoteEndpoint], rng: Random
) -> None:
    """No two rows share a kernel key, and one pass is enough."""
    first = plan_sandbox(given_input(FOUR, SIX, remotes=tuple(before)))
    second = plan_sandbox(given_input(FOUR, SIX, remotes=tuple(after)))

    assert len({row_key(row) for row in second.rows}) == len(second.rows)
    assert all(row.link in second.links for row in second.rows)
    assert applied(first, diff(second, first, prune=True)) == second
    unique = {(remote.origin, remote.endpoint.endpoint_id): remote for remote in after}
    shuffled = list(unique.values())
    expected = plan_sandbox(given_input(FOUR, SIX, remotes=tuple(shuffled)))
    rng.shuffle(shuffled)
    assert expected == plan_sandbox(given_input(FOUR, SIX, remotes=tuple(shuffled)))


@pytest.mark.parametrize(
    "label", [*labels_of_allowed([parse_ip("10.0.0.9")]), PORT_SECURITY_OFF_LABEL]
)
def test_a_virtual_address_is_announced_without_a_fast_path(label: tuple[str, str]) -> None:
    """By programs that redirect nothing; a kernel without eBPF has none."""
    virtual = replace(endpoint(1, "10.0.0.5"), labels=(label,))
    given = given_input(FOUR, ports=(LocalPort("p1", 0, virtual.endpoint_id),), locals=(virtual,))
    hooks: set[Row] = {HookRow(0, "br0"), HookRow(0, "p1"), HookRow(0, "vxlan0")}
    rows = plan_sandbox(given).rows

    assert {*hooks, TargetRow(DEFAULT_TARGET_MAC, 0, "vxlan0")} == {
        row for row in rows if isinstance(row, HookRow | TargetRow | SourceRow)
    }
    assert not hooks & set(plan_sandbox(given, policing=False).rows)


def test_the_host_endpoint_is_the_default_route() -> None:
    """Where the host has an endpoint, its port is the default route.

    Nothing is flooded for it.
    """
    host = replace(endpoint(9, "10.0.0.254", "fd00::fe"), labels=(HOST_LABEL,))
    state = plan_sandbox(given_input(FOUR, SIX, locals=(host, endpoint(1, "10.0.0.2"))))

    assert {row for row in state.rows if not isinstance(row, AddressRow)} == {
        NeighborRow("br0", host.ips[0], host.mac),
        NeighborRow("br0", host.ips[1], host.mac),
        BridgeFdbRow("host0", host.mac),
        RouteRow("br0", Ip(bytes(4)), 0, host.ips[0]),
        RouteRow("br0", Ip(bytes(16)), 0, host.ips[1]),
    }
    assert state.links["host0"] == Port("host0", given_input(FOUR).mtu, "br0")


def test_all_segments_share_one_default_route() -> None:
    """With an endpoint on each segment, the first one has the default route."""
    ends = tuple(
        replace(endpoint(serial, text), labels=(HOST_LABEL,))
        for serial, text in ((9, "10.0.1.254"), (8, "10.0.0.254"))
    )
    state = plan_sandbox(given_input(FOUR, FIVE, locals=ends))

    routes = [row for row in state.rows if isinstance(row, RouteRow)]
    assert routes == [RouteRow("br0", Ip(bytes(4)), 0, parse_ip("10.0.0.254"))]


def test_isolated_subnets_have_barriers_between_them() -> None:
    """From each bridge to all other segments; both families stay together."""
    given = given_input(FOUR, FIVE, SIX)
    isolated = replace(given, network=replace(given.network, isolate_subnets=True))
    barriers = plan_sandbox(isolated).rows - plan_sandbox(given).rows

    assert barriers == {
        BarrierRow("br1", 24, FOUR.base),
        BarrierRow("br0", 24, FIVE.base),
        BarrierRow("br1", 64, SIX.base),
    }
