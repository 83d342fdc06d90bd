from __future__ import annotations

import pytest
from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.core.dataplane.operations import (
    ChangeLink,
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
    InterceptRow,
    NeighborRow,
    RouteRow,
    SandboxState,
    SourceRow,
    UnexpectedRow,
)
from overlay.model import Ip, Mac, Vni

MAC, OTHER_MAC = Mac(bytes(6)), Mac(bytes(5) + b"1")
IP, OTHER_IP = Ip(bytes(4)), Ip(bytes(3) + b"1")
LINKS: dict[str, Link] = {
    "br0": Bridge("br0", MAC, 1450),
    "vxlan0": Vxlan("vxlan0", Vni(5), IP, 4789, 1450, "br0"),
    "p1": Port("p1", 1450, "br0"),
}


def test_the_model_refuses_what_the_kernel_would() -> None:
    """A row or port on a missing link is an error, not a silent success."""
    with pytest.raises(ValueError, match="no link vxlan0"):
        applied(SandboxState(), [PutRow(FloodRow("vxlan0", IP))])
    with pytest.raises(ValueError, match="no bridge br0"):
        applied(SandboxState(), [PutLink(LINKS["p1"])])


def test_ports_of_a_deleted_bridge_have_no_master() -> None:
    """As in the kernel: the ports stay, and forward nothing."""
    after = applied(SandboxState(LINKS), [DeleteLink(LINKS["br0"])])

    assert after.links["p1"] == Port("p1", 1450, "")


def test_rows_of_different_kinds_are_never_equal() -> None:
    """Rows are tuples in one set: the sizes of MAC and IP separate the kinds."""
    rows = {
        FloodRow("l", IP),
        GroupRow(MAC, "l", IP),
        SourceRow(IP, MAC, "l"),
        BridgeFdbRow("l", MAC),
        FdbRow("l", MAC, IP),
        NeighborRow("l", IP, MAC),
        AddressRow("l", IP, 4),
        RouteRow("l", IP, 4, IP),
        BarrierRow("l", 4, IP),
        InterceptRow("l", 4),
        UnexpectedRow("l", "", b""),
    }

    assert len(rows) == 11


def test_a_put_takes_the_place_of_the_row_under_its_key() -> None:
    """One VTEP per MAC, one MAC per neighbor; but several flood rows."""
    state = applied(
        SandboxState(LINKS),
        [
            PutRow(FdbRow("vxlan0", MAC, IP)),
            PutRow(FdbRow("vxlan0", MAC, OTHER_IP)),
            PutRow(NeighborRow("br0", IP, MAC)),
            PutRow(NeighborRow("br0", IP, OTHER_MAC)),
            PutRow(FloodRow("vxlan0", IP)),
            PutRow(FloodRow("vxlan0", OTHER_IP)),
        ],
    )

    assert state.rows == {
        FdbRow("vxlan0", MAC, OTHER_IP),
        NeighborRow("br0", IP, OTHER_MAC),
        FloodRow("vxlan0", IP),
        FloodRow("vxlan0", OTHER_IP),
    }


def test_deleting_a_missing_row_succeeds() -> None:
    """As in the kernel layer: the aim is that the row does not exist."""
    assert applied(SandboxState(LINKS), [DeleteRow(FloodRow("vxlan0", IP))]) == SandboxState(LINKS)


def test_a_change_takes_effect_as_a_whole() -> None:
    """The link is as desired then, whatever differed before."""
    after = Port("p1", 1400, "br0")

    assert applied(SandboxState(LINKS), [ChangeLink(LINKS["p1"], after)]).links["p1"] == after


def test_a_port_without_a_master_reads_so() -> None:
    """The text reports the missing master as `ip` does."""
    assert str(ChangeLink(LINKS["p1"], Port("p1", 1450, ""))) == "ip link set p1 nomaster"


def test_foreign_rows_differ_by_their_request() -> None:
    """Two rows with equal text may be two in the kernel."""
    assert row_key(UnexpectedRow("br0", "x", b"1")) != row_key(UnexpectedRow("br0", "x", b"2"))
