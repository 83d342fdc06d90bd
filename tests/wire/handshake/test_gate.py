"""Macs, cookies, and the limits on what costs more than a mac."""

from __future__ import annotations

import random

import pytest
from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip, parse_ip
from overlay.wire.codec.datagram import UdpEndpoint
from overlay.wire.handshake.cookies import MACS_SIZE, REPLY_SIZE, CookieJar, receiver_key
from overlay.wire.handshake.gate import HandshakeGate

KEY, OTHER_KEY = receiver_key(b"receiver"), receiver_key(b"another")
RECEIVER = UdpEndpoint(parse_ip("10.0.0.1"), 7948)
SENDER = UdpEndpoint(parse_ip("10.0.0.2"), 7948)
HELLO = b"\x02\x01" + bytes(300)
ADMITTED, COOKIE, RATE_LIMITED, WRONG = "admitted", "cookie", "rate-limited", "wrong-receiver"


def gate() -> HandshakeGate:
    """Return a gate with fixed secrets."""
    return HandshakeGate(random.Random(5).randbytes)


def sources(count: int) -> list[UdpEndpoint]:
    """Return so many made-up addresses."""
    return [UdpEndpoint(Ip(b"\x0b" + number.to_bytes(3, "big")), 1) for number in range(count)]


def verdict(one: HandshakeGate, data: bytes, source: UdpEndpoint, now: float = 0.0) -> str:
    """Return what becomes of a datagram."""
    try:
        return ADMITTED if one.check(KEY, 7, data, source, now) is None else COOKIE
    except RemoteError as error:
        return error.reason


def exhausted(now: float = 0.0) -> HandshakeGate:
    """Return a gate that lets nothing more through without a cookie."""
    one = gate()
    data = CookieJar().protect(RECEIVER, KEY, HELLO, now)
    while verdict(one, data, SENDER, now) == ADMITTED:
        pass
    return one


def reply(one: HandshakeGate, data: bytes, source: UdpEndpoint = SENDER) -> bytes:
    """Return the cookie that a datagram is answered with."""
    cookie = one.check(KEY, 7, data, source, 0.0)
    assert cookie is not None
    return cookie


def test_without_the_receivers_mac_nothing_is_counted() -> None:
    """A sender without the receiver's key cannot use up the allowance of others."""
    one = gate()
    wrong = CookieJar().protect(RECEIVER, OTHER_KEY, HELLO, 0.0)
    assert {verdict(one, wrong, source) for source in sources(5000)} == {WRONG}
    right = CookieJar().protect(RECEIVER, KEY, HELLO, 0.0)
    assert verdict(one, right, SENDER) == ADMITTED
    assert verdict(one, right[:-1] + b"\1", SENDER) == ADMITTED  # a cookie is not asked for yet
    assert verdict(one, b"\0" + right[1:], SENDER) == WRONG


def test_beyond_the_allowance_senders_get_a_cookie() -> None:
    """So many a second from all addresses together pass without one."""
    one, data = gate(), CookieJar().protect(RECEIVER, KEY, HELLO, 0.0)
    verdicts = [verdict(one, data, source) for source in sources(1000)]
    assert verdicts.count(ADMITTED) == limits.HANDSHAKES_UNPROVEN_BURST
    assert verdicts.count(COOKIE) == 1000 - limits.HANDSHAKES_UNPROVEN_BURST
    later = [verdict(one, data, source, 1.0) for source in sources(1000)]
    assert later.count(ADMITTED) == limits.HANDSHAKES_UNPROVEN_PER_S


def test_a_sender_with_a_cookie_passes_a_flood() -> None:
    """It repeats its datagram with the second mac, and has an allowance of its own."""
    one, jar = exhausted(), CookieJar()
    first = jar.protect(RECEIVER, KEY, HELLO, 0.0)
    assert verdict(one, first, SENDER) == COOKIE
    assert jar.accept(RECEIVER, reply(one, first), 0.0)
    verdicts = [
        verdict(one, jar.protect(RECEIVER, KEY, HELLO + bytes([n]), 0.0), SENDER)
        for n in range(200)
    ]
    assert verdicts.count(ADMITTED) == limits.HANDSHAKES_PER_SOURCE_BURST
    assert set(verdicts) == {ADMITTED, RATE_LIMITED}


def test_a_cookie_is_for_one_address() -> None:
    """Sent from another address or port it is worth nothing."""
    one, jar = exhausted(), CookieJar()
    assert jar.accept(RECEIVER, reply(one, jar.protect(RECEIVER, KEY, HELLO, 0.0)), 0.0)
    proven = jar.protect(RECEIVER, KEY, HELLO, 0.0)
    for source in (SENDER._replace(port=1), SENDER._replace(address=parse_ip("10.0.0.9"))):
        assert verdict(one, proven, source) == COOKIE
    assert verdict(one, proven, SENDER) == ADMITTED


def test_a_cookie_ends_with_its_secret() -> None:
    """It is valid for two minutes at least, and for four at most."""
    one, jar = exhausted(1000.0), CookieJar()
    first = jar.protect(RECEIVER, KEY, HELLO, 1000.0)
    cookie = one.check(KEY, 7, first, SENDER, 1000.0)
    assert cookie is not None
    jar.accept(RECEIVER, cookie, 1000.0)
    proven = jar.protect(RECEIVER, KEY, HELLO, 1000.0)
    for now, expected in ((1119.0, 1), (1239.0, 1), (1361.0, 0)):
        while verdict(one, first, SENDER, now) == ADMITTED:
            pass
        assert (verdict(one, proven, SENDER, now) == ADMITTED) == bool(expected)
    assert jar.protect(RECEIVER, KEY, HELLO, 1121.0)[-MACS_SIZE // 2 :] == bytes(16)


def test_only_an_answer_to_the_last_datagram_is_accepted() -> None:
    """Neither a forged cookie, nor one for another datagram, nor a second one."""
    one, jar = exhausted(), CookieJar()
    assert not jar.accept(RECEIVER, bytes(REPLY_SIZE), 0.0)  # nothing was sent there
    old = jar.protect(RECEIVER, KEY, HELLO, 0.0)
    late = reply(one, old)
    new = jar.protect(RECEIVER, KEY, HELLO + b"2", 0.0)
    assert not jar.accept(RECEIVER, late, 0.0)
    answer = reply(one, new)
    assert not jar.accept(SENDER, answer, 0.0)
    assert not jar.accept(RECEIVER, answer[:-1] + bytes([answer[-1] ^ 1]), 0.0)
    assert not jar.accept(RECEIVER, answer[:-1], 0.0)
    assert jar.accept(RECEIVER, answer, 0.0)
    assert not jar.accept(RECEIVER, answer, 0.0)


def test_a_cookie_is_smaller_than_what_asks_for_it() -> None:
    """Nobody can be flooded by way of a member."""
    one = exhausted()
    data = CookieJar().protect(RECEIVER, KEY, HELLO, 0.0)
    assert len(reply(one, data)) == REPLY_SIZE < len(data)


def test_cookies_are_limited_too() -> None:
    """Beyond that a datagram costs its mac only."""
    one, data = exhausted(), CookieJar().protect(RECEIVER, KEY, HELLO, 0.0)
    verdicts = [verdict(one, data, SENDER) for _ in range(int(limits.COOKIES_BURST) + 10)]
    assert verdicts.count(RATE_LIMITED) >= 10


def test_sources_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source unseen for longest is forgotten first."""
    monkeypatch.setattr(limits, "GATE_SOURCES_MAX", 10)
    monkeypatch.setattr(limits, "COOKIES_KEPT_MAX", 10)
    one, jar = exhausted(), CookieJar()
    for source in sources(30):
        data = jar.protect(RECEIVER, KEY, HELLO, 0.0)
        assert jar.accept(RECEIVER, reply(one, data, source), 0.0)
        assert verdict(one, jar.protect(RECEIVER, KEY, HELLO, 0.0), source) == ADMITTED
        jar.protect(source, KEY, HELLO, 0.0)
    assert len(one._sources) == 10
    assert len(jar._sent) <= 10
