"""Cookies between sessions: a member in a flood is met, and one that only asks is not served."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip
from overlay.wire.codec.datagram import COOKIE, HELLO, Datagram, UdpEndpoint
from overlay.wire.codec.session_header import hello_header, short_index
from overlay.wire.handshake.cookies import MACS_SIZE, CookieJar, cookie_reply, receiver_key

if TYPE_CHECKING:
    from tests.wire.conftest import Host, Wire


def flood(wire: Wire, target: Host) -> None:
    """Use up what a host lets through without a cookie, by hellos from made-up addresses."""
    place = UdpEndpoint(target.card.address, target.card.gossip_port)
    key = receiver_key(target.card.seal_key)
    junk = CookieJar().protect(place, key, hello_header(1) + bytes(300), wire.now)
    for number in range(int(limits.HANDSHAKES_UNPROVEN_BURST) + 50):
        source = UdpEndpoint(Ip(b"\x0b" + number.to_bytes(3, "big")), 7948)
        wire.sources[junk] = source
        wire.open(Datagram(*place, junk))
    assert "cookie-sent" in wire.drops
    wire.drops.clear()


def test_a_hello_passes_a_flood_by_a_cookie(wire: Wire) -> None:
    """The member asks for one; the hello is repeated with it, and the payload arrives."""
    one, other = wire.host(1), wire.host(2)
    one.sessions.learn(other.card)
    other.sessions.learn(one.card)
    flood(wire, other)

    (hello,) = one.sessions.seal(other.node_id, b"through", wire.now)
    (cookie,) = wire.open(hello)
    assert cookie.data[1] == COOKIE
    (repeated,) = wire.open(cookie)
    assert repeated.data[1] == HELLO
    flood(wire, other)
    wire.deliver([repeated])
    assert wire.payloads == [(one.node_id, b"through")]


def test_a_first_contact_passes_a_flood_by_a_cookie(wire: Wire) -> None:
    """Its sender repeats it, as it does anyway until it is answered."""
    one, other = wire.host(1), wire.host(2)
    key = receiver_key(one.sessions.context.signer.anchor.cluster_id)
    place = UdpEndpoint(other.card.address, other.card.gossip_port)
    assert receiver_key(other.card.seal_key) != key
    flood(wire, other)

    (join,) = one.sessions.first_hello(*place, wire.now)
    (cookie,) = wire.open(join)
    assert cookie.data[1] == COOKIE
    assert wire.open(cookie) == []
    flood(wire, other)
    wire.deliver(one.sessions.first_hello(*place, wire.now))
    assert one.sessions.established(other.node_id, wire.now)


def test_a_peer_that_only_asks_for_cookies_gets_few_hellos(wire: Wire) -> None:
    """Each hello costs its sender two key agreements, so the peer must not set the pace."""
    one, hostile = wire.host(1), wire.host(2)
    one.sessions.learn(hostile.card)
    source = UdpEndpoint(hostile.card.address, hostile.card.gossip_port)
    key = receiver_key(hostile.card.seal_key)
    hellos, asked = one.sessions.seal(hostile.node_id, b"x", wire.now), 0
    for number in range(3000):
        last = hellos[-1].data
        assert len(last) > MACS_SIZE
        nonce = number.to_bytes(16, "big")
        cookie = cookie_reply(key, short_index(last), last, b"c" * 16, nonce)
        with contextlib.suppress(RemoteError):  # the second one for a hello
            hellos += one.sessions.open(cookie, source, wire.now).replies
            asked += 1
        wire.now += 0.001

    assert asked > 1
    assert len(hellos) <= 10
