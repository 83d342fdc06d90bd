from __future__ import annotations

from overlay.core.dataplane.conflicts import Claim
from overlay.core.dataplane.gateways import GatewayClaim, gateway_claims, gateway_macs
from overlay.model import (
    Endpoint,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    gateway_mac,
    mac_for,
    mac_text,
    parse_ip,
)

A, B = (NodeId(bytes([65 + index]) * 16) for index in range(2))
VNI = Vni(700)
BLUE = Network(
    VNI,
    "blue",
    (
        Subnet(parse_ip("10.0.0.0"), 24, parse_ip("10.0.0.1")),
        Subnet(parse_ip("10.0.1.0"), 24, parse_ip("10.0.1.1")),
    ),
    A,
)


def claim(serial: int, text: str, mac: Mac | None = None) -> Claim:
    """Return the claim of an endpoint on B."""
    ip = parse_ip(text)
    return Claim(
        B, Endpoint(serial.to_bytes(8, "big"), VNI, f"c{serial}", mac or mac_for(VNI, ip), (ip,))
    )


def test_each_segment_has_a_reserved_mac() -> None:
    """No container's derived MAC is one of them: their first bytes differ."""
    assert gateway_macs(BLUE) == {gateway_mac(VNI, 0), gateway_mac(VNI, 1)}
    assert {mac[0] for mac in gateway_macs(BLUE)} == {6}


def test_claims_on_a_gateway_are_found() -> None:
    """By MAC or by address, in the order of their endpoints."""
    by_ip = claim(3, "10.0.1.1")
    by_mac = claim(2, "10.0.0.9", gateway_mac(VNI, 1))
    honest = claim(1, "10.0.0.8")

    assert gateway_claims(BLUE, [by_ip, by_mac, honest]) == [
        GatewayClaim(by_mac, f"MAC {mac_text(gateway_mac(VNI, 1))}"),
        GatewayClaim(by_ip, "address 10.0.1.1"),
    ]
