"""A host that may have receivers it does not hear of says so."""

from __future__ import annotations

from typing import NamedTuple, cast

import pytest
from overlay.agent.multicast.open_ports import has_open_port
from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.model import (
    HOST_LABEL,
    PORT_SECURITY_OFF_LABEL,
    Endpoint,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
    parse_ip,
)

SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
BLUE = Network(Vni(9), "blue", (SUBNET,), NodeId(bytes(16)))
OPEN = Network(Vni(9), "blue", (SUBNET,), NodeId(bytes(16)), labels=(PORT_SECURITY_OFF_LABEL,))
IP = parse_ip("10.32.0.2")
LINKS: list[Link] = [
    Bridge("br0", gateway_mac(BLUE.vni, 0), 1450),
    Vxlan("vxlan0", BLUE.vni, parse_ip("10.0.0.1"), 4789, 1450, "br0"),
    Port("ve0102", 1450, "br0"),
    Port("host0", 1450, "br0"),
]


class OtherPort(NamedTuple):
    """A port of another kind, such as an interface of the host."""

    name: str
    master: str


def endpoint(*labels: tuple[str, str]) -> Endpoint:
    """Return an endpoint with labels."""
    return Endpoint(b"1" * 8, BLUE.vni, "web", mac_for(BLUE.vni, IP), (IP,), labels=labels)


@pytest.mark.parametrize(
    ("network", "label", "port", "is_open"),
    [
        (BLUE, ("a", "b"), ("x", ""), False),
        (BLUE, PORT_SECURITY_OFF_LABEL, ("x", ""), True),
        (BLUE, ("overlayd.vlan", "10"), ("x", ""), True),
        (OPEN, ("a", "b"), ("x", ""), True),
        (OPEN, HOST_LABEL, ("x", ""), False),
        (BLUE, ("a", "b"), ("plug0", "br0"), True),
    ],
    ids=["own", "port security off", "tagged", "open network", "the host's own", "plugged"],
)
def test_others_may_be_behind_such_a_port(
    network: Network, label: tuple[str, str], port: tuple[str, str], is_open: bool
) -> None:
    """One whose frames come from any MAC, or are tagged."""
    links = [*LINKS, cast("Link", OtherPort(*port))]

    assert has_open_port(network, [endpoint(label)], links) == is_open
