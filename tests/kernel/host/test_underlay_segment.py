"""The interfaces of a host that reach the underlay's segment."""

from __future__ import annotations

import pytest
from overlay.kernel.host.underlay_segment import shares_segment
from overlay.kernel.netlink.link_decoder import LinkInfo


def link(index: int, name: str, kind: str = "", lower: int = 0, master: int = 0) -> LinkInfo:
    """Return a link on top of another, and a port of a third."""
    return LinkInfo(
        index, name, kind, up=True, carrier=True, forwarding=True, mtu=1500, mac=bytes(6),
        master=master, alias="", peer=lower, netns=-1, generates_address=False, data={},
        port_data={},
    )  # fmt: skip


LINKS = [
    link(1, "lo"),
    link(2, "eth0"),
    link(3, "eth1"),
    link(4, "eth1.7", "vlan", lower=3),
    link(5, "mv0", "macvlan", lower=3),
    link(6, "bond0", "bond"),
    link(7, "eth2", master=6),
    link(8, "eth3", master=6),
    link(9, "bond0.5", "vlan", lower=6),
    link(10, "br0", "bridge"),
    link(11, "eth4", master=10),
    link(12, "ve0", "veth", lower=13),
    link(13, "ve1", "veth", lower=12),
]


@pytest.mark.parametrize(
    ("underlay", "reaching"),
    [
        ("eth1", {"eth1", "mv0"}),
        ("eth1.7", {"eth1.7", "eth1", "mv0"}),
        ("bond0.5", {"bond0.5", "bond0", "eth2", "eth3"}),
        ("br0", {"br0", "eth4"}),
        ("eth4", {"eth4", "br0"}),
        ("ve0", {"ve0", "ve1"}),
        ("gone", set()),
    ],
)
def test_stacked_interfaces_share_a_segment(underlay: str, reaching: set[str]) -> None:
    """Those below it, beside it without a tag, and the bridge that it is a port of."""
    found = {each.name for each in LINKS if shares_segment(LINKS, each.name, underlay)}

    assert found == reaching
    assert not shares_segment(LINKS, "eth1.99", underlay)
