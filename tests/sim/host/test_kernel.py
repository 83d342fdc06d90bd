from __future__ import annotations

import pytest
from overlay.core.dataplane.link_state import Bridge, Port, Vxlan
from overlay.core.dataplane.operations import (
    ChangeLink,
    DeleteLink,
    DeleteRow,
    Operation,
    PutLink,
    PutRow,
)
from overlay.core.dataplane.state import BridgeFdbRow, FdbRow, SandboxState
from overlay.model import Endpoint, Vni, mac_for, parse_ip
from overlay.sim.host.kernel import Container, Kernel, KernelRefusedError

VNI = Vni(100)
MAC = mac_for(VNI, parse_ip("10.1.0.2"))
BRIDGE = Bridge("br0", MAC, 1450)
VXLAN = Vxlan("vxlan0", VNI, parse_ip("192.168.0.1"), 4789, 1450, "br0")
ROW = FdbRow("vxlan0", MAC, parse_ip("192.168.0.2"))
ENDPOINT = Endpoint(b"12345678", VNI, "web", MAC, (parse_ip("10.1.0.2"),))


def ready(*operations: Operation) -> Kernel:
    """Return a kernel with a bridge, a VXLAN device and more."""
    kernel = empty()
    kernel.apply(VNI, [PutLink(BRIDGE), PutLink(VXLAN), *operations])
    return kernel


def empty() -> Kernel:
    """Return a kernel with one empty sandbox."""
    kernel = Kernel()
    kernel.open(VNI)
    return kernel


@pytest.mark.parametrize(
    "operation",
    [
        PutLink(BRIDGE),
        PutRow(ROW),
        PutRow(FdbRow("vxlan9", MAC, parse_ip("192.168.0.2"))),
        DeleteRow(BridgeFdbRow("vxlan0", MAC)),
        DeleteRow(FdbRow("vxlan0", MAC, parse_ip("192.168.0.9"))),
        DeleteLink(Bridge("br7", MAC, 1450)),
        ChangeLink(Bridge("br0", MAC, 9000), BRIDGE),
        PutLink(Port("veth1", 1450, "br0")),
        PutLink(Vxlan("vxlan1", Vni(101), parse_ip("192.168.0.1"), 4789, 1450, "br1")),
    ],
    ids=str,
)
def test_it_refuses_careless_operations(operation: Operation) -> None:
    """Adding twice, and changing or deleting something else, is refused."""
    kernel = ready(PutRow(ROW))

    with pytest.raises(KernelRefusedError):
        kernel.apply(VNI, [operation])


def test_a_put_replaces_the_row_of_its_key() -> None:
    """An FDB row for a MAC replaces the one with another VTEP."""
    moved = FdbRow("vxlan0", MAC, parse_ip("192.168.0.3"))
    kernel = ready(PutRow(ROW), PutRow(moved))

    assert kernel.read(VNI) == SandboxState({"br0": BRIDGE, "vxlan0": VXLAN}, frozenset({moved}))


def test_a_deleted_link_takes_its_rows_and_frees_its_ports() -> None:
    """A device's rows are deleted with it, and ports lose their master."""
    kernel = ready(PutRow(ROW), DeleteLink(VXLAN))
    kernel.plug(Container(ENDPOINT, "veth1", 0), Port("veth1", 1450, "br0"))
    kernel.apply(VNI, [DeleteLink(BRIDGE)])

    assert kernel.read(VNI) == SandboxState({"veth1": Port("veth1", 1450, "")}, frozenset())


def test_a_kill_in_the_middle_leaves_the_first_part() -> None:
    """An interrupted apply has applied only the earlier operations."""
    kernel = empty()

    assert not kernel.apply(VNI, [PutLink(BRIDGE), PutLink(VXLAN)], stop_after=1)
    assert kernel.read(VNI) == SandboxState({"br0": BRIDGE}, frozenset())


def test_a_failing_kernel_applies_nothing() -> None:
    """While operations fail, the state stays and `apply` returns False."""
    kernel = empty()
    kernel.failing = True

    assert not kernel.apply(VNI, [PutLink(BRIDGE)])
    assert kernel.operation_count == 0


def test_a_mac_is_found_behind_its_port_only() -> None:
    """A bridge learns a container's MAC only on the container's port."""
    kernel = ready()
    kernel.plug(Container(ENDPOINT, "veth1", 0), Port("veth1", 1450, "br0"))

    found = kernel.container_behind(VNI, "br0", MAC)
    assert found is not None
    assert found.endpoint == ENDPOINT
    assert kernel.container_behind(VNI, "br1", MAC) is None


def test_unplug_is_idempotent() -> None:
    """Removing a container's interface twice is not an error."""
    kernel = ready()
    kernel.plug(Container(ENDPOINT, "veth1", 0), Port("veth1", 1450, "br0"))
    kernel.unplug(ENDPOINT.endpoint_id)
    kernel.unplug(ENDPOINT.endpoint_id)

    assert kernel.containers == {}
