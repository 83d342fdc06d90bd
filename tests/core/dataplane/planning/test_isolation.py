"""Which addresses isolated ports do not exchange frames with, and what their ports may do."""

from __future__ import annotations

from collections.abc import Iterable

from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.port_security import labels_of_allowed
from overlay.core.dataplane.state import GuardRow, IsolatedRow, Row, SourceRow, TargetRow
from overlay.model import (
    HOST_LABEL,
    ISOLATE_PORTS_LABEL,
    ISOLATED_LABEL,
    NOT_ISOLATED_LABEL,
    PORT_SECURITY_OFF_LABEL,
    Endpoint,
    Network,
    NodeId,
    Subnet,
    Vni,
    is_isolated,
    mac_for,
    parse_ip,
)

VNI = Vni(9)
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
VIRTUAL = parse_ip("10.32.0.100")
HERE, THERE = parse_ip("192.168.56.11"), parse_ip("192.168.56.12")


def network(*labels: tuple[str, str]) -> Network:
    """Return a network with labels."""
    return Network(VNI, "blue", (SUBNET,), NodeId(bytes(16)), labels=labels)


def endpoint(last: int, *labels: tuple[str, str]) -> Endpoint:
    """Return a container's endpoint with labels."""
    ip = parse_ip(f"10.32.0.{last}")
    return Endpoint(bytes([last]) * 8, VNI, f"c{last}", mac_for(VNI, ip), (ip,), labels=labels)


def given(own: Endpoint, others: Iterable[Endpoint], on: Network) -> PlanInput:
    """Return what a host has with one container, and those of another host."""
    there = (RemoteEndpoint(NodeId(bytes(16)), THERE, each) for each in others)
    port = LocalPort("ve1", 0, own.endpoint_id)
    return PlanInput(on, 4789, HERE, 1450, (port,), (own,), tuple(there))


def planned(
    own: Endpoint, *others: Endpoint, on: Network, guarded: bool = True
) -> tuple[frozenset[Row], Port]:
    """Return the rows of a host with one container, and its port."""
    state = plan_sandbox(given(own, others, on), fast_path=True, guarded=guarded)
    port = state.links["ve1"]
    assert isinstance(port, Port)
    return frozenset(state.rows), port


def isolated(rows: frozenset[Row]) -> set[bytes]:
    """Return the addresses of isolated containers in a plan."""
    return {row.address for row in rows if isinstance(row, IsolatedRow)}


def test_an_endpoint_overrides_its_network() -> None:
    """A host is never isolated."""
    isolating = network(ISOLATE_PORTS_LABEL)

    assert is_isolated(isolating, endpoint(2))
    assert not is_isolated(isolating, endpoint(2, NOT_ISOLATED_LABEL))
    assert not is_isolated(isolating, endpoint(2, HOST_LABEL))
    assert is_isolated(network(), endpoint(2, ISOLATED_LABEL))
    assert not is_isolated(network(), endpoint(2))


def test_isolated_addresses_have_rows_where_a_port_is() -> None:
    """A host without an isolated container has none."""
    own, other, common = endpoint(2, ISOLATED_LABEL), endpoint(3, ISOLATED_LABEL), endpoint(4)
    rows, _ = planned(own, other, common, on=network())

    assert isolated(rows) == {own.mac, *own.ips, other.mac, *other.ips}
    assert isolated(planned(common, other, on=network())[0]) == set()


def test_a_virtual_address_is_isolated_if_all_its_users_are() -> None:
    """Addresses that a container may use that is not isolated are reached."""
    allowed = labels_of_allowed([VIRTUAL])
    own, common = endpoint(2, ISOLATED_LABEL, *allowed), endpoint(4, *allowed)

    assert VIRTUAL in isolated(planned(own, endpoint(3), on=network())[0])
    assert VIRTUAL not in isolated(planned(own, common, on=network())[0])


def test_frames_of_an_isolated_port_take_the_bridge() -> None:
    """In both directions; there, port security checks them."""
    own = endpoint(2, ISOLATED_LABEL)
    rows, _ = planned(own, on=network())

    assert TargetRow(own.mac, 0, "br0") in rows
    assert not any(isinstance(row, SourceRow) for row in rows)
    assert GuardRow((own.mac,), own.ips, "ve1", is_isolated=True) in rows


def test_an_isolated_port_is_never_open() -> None:
    """Isolation goes by the sender's addresses, so they are checked."""
    own = endpoint(2, PORT_SECURITY_OFF_LABEL)
    rows, _ = planned(own, on=network(ISOLATE_PORTS_LABEL))

    assert GuardRow((own.mac,), own.ips, "ve1", is_isolated=True) in rows


def test_without_port_security_an_isolated_port_is_shut() -> None:
    """It is on no bridge; another one is."""
    shut = planned(endpoint(2, ISOLATED_LABEL), on=network(), guarded=False)[1]
    other = planned(endpoint(2), on=network(), guarded=False)[1]

    assert (shut.master, other.master) == ("", "br0")
