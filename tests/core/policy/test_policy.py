"""The text form of peers and ports."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.policy.policy import (
    PORT_MAX,
    Peer,
    PeerKind,
    PortRange,
    parse_peer,
    parse_port_range,
)

WORDS = st.text(alphabet="abcxyz019-", min_size=1, max_size=8)
PEERS = st.one_of(
    st.just(Peer(PeerKind.HOST)),
    st.just(Peer(PeerKind.WORLD)),
    st.builds(Peer, st.sampled_from([PeerKind.NAME, PeerKind.NETWORK]), WORDS),
    st.builds(
        Peer, st.just(PeerKind.LABEL), WORDS, st.none() | WORDS | st.just("a=b") | st.just("")
    ),
    st.builds(
        lambda base, length: Peer(
            PeerKind.CIDR, cidr=ipaddress.ip_network((base, length), strict=False)
        ),
        st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
        st.integers(0, 32),
    ),
)
RANGES = st.one_of(
    st.sampled_from([PortRange("tcp"), PortRange("udp"), PortRange("icmp")]),
    st.builds(
        lambda protocol, ports: PortRange(protocol, min(ports), max(ports)),
        st.sampled_from(["tcp", "udp"]),
        st.lists(st.integers(1, PORT_MAX), min_size=1, max_size=2),
    ),
)


@given(peer=PEERS)
def test_a_peer_is_read_as_it_is_shown(peer: Peer) -> None:
    """The output of `policy ls` is valid input."""
    assert parse_peer(str(peer)) == peer


@given(ports=RANGES)
def test_ports_are_read_as_they_are_shown(ports: PortRange) -> None:
    """The output of `policy ls` is valid input."""
    assert parse_port_range(str(ports)) == ports


@pytest.mark.parametrize(
    "text",
    [
        "",
        "web",
        "label=",
        "label==x",
        "name=",
        "cidr:",
        "cidr:10.0.0.1/8",
        "cidr:x",
        "hosts",
        "network=",
    ],
)
def test_other_peers_are_refused(text: str) -> None:
    """A peer that means nothing must not come to mean everything."""
    with pytest.raises(ValueError, match=r"not a peer|not appear|host bits"):
        parse_peer(text)


@pytest.mark.parametrize(
    "text",
    ["", "80", "0/tcp", "65536/tcp", "9-8/tcp", "80/icmp", "a/tcp", "80/sctp", "/tcp", "-1/tcp"],
)
def test_other_ports_are_refused(text: str) -> None:
    """A port that means nothing must not come to mean all of them."""
    with pytest.raises(ValueError, match="is not a port"):
        parse_port_range(text)
