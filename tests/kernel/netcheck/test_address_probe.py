"""Packets to this machine's own loopback: what comes back from ports in each state."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from overlay.core.netcheck.facts import Reply
from overlay.kernel.netcheck.address_probe import probe_address

ADDRESSES = ["127.0.0.1", "::1"]


@pytest.fixture(params=ADDRESSES)
def bound(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """Return a bound UDP socket on a loopback address."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        try:
            opened.bind((request.param, 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        yield opened


def test_a_closed_port_refuses_and_an_open_one_is_silent(bound: socket.socket) -> None:
    """So a host is told from a filter; nothing larger than the question comes back."""
    address, port = bound.getsockname()[:2]
    found = probe_address(address, gossip_port=port, vxlan_port=9, mtu=1500, seconds=1.0)

    assert (found.gossip, found.vxlan, found.other) == (
        Reply.SILENT,
        Reply.REFUSED,
        Reply.REFUSED,
    )
    assert found.address == address
    assert bound.recv(100) == b"overlayd netcheck"


def test_a_closed_port_of_a_tunnel_refuses(bound: socket.socket) -> None:
    """So a device that is gone is told from a filter; an open one answers no stranger."""
    address, port = bound.getsockname()[:2]
    gone = probe_address(
        address, gossip_port=9, vxlan_port=9, wireguard_port=9, mtu=1500, seconds=1.0
    )
    there = probe_address(
        address, gossip_port=9, vxlan_port=9, wireguard_port=port, mtu=1500, seconds=0.3
    )

    assert (gone.wireguard, there.wireguard) == (Reply.REFUSED, Reply.SILENT)


def test_an_answer_of_the_port_is_noted(bound: socket.socket) -> None:
    """As that of an agent."""
    address, port = bound.getsockname()[:2]
    with socket.socket(bound.family, socket.SOCK_DGRAM) as other:
        other.bind((address, 0))
        found = probe_address(
            address, gossip_port=port, vxlan_port=other.getsockname()[1], mtu=1500, seconds=0.5
        )
        assert found.vxlan is Reply.SILENT
        payload = other.recv(100)

    assert payload[:4] == b"\x08\0\0\0"  # VXLAN, and no frame in it
    assert len(payload) == 8
