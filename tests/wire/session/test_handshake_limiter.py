from __future__ import annotations

import contextlib

import pytest
from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip, parse_ip
from overlay.wire.codec.datagram import DATA, HELLO, JOIN, JOIN_HELLO, JOIN_REQUEST, NOTICE
from overlay.wire.session.handshake_limiter import HandshakeLimiter

MEMBER, STRANGER = parse_ip("10.0.0.1"), parse_ip("10.0.0.2")


def gate() -> HandshakeLimiter:
    """Return a limiter that knows one member."""
    return HandshakeLimiter(lambda address: address == MEMBER, 0.0)


def admitted(gate: HandshakeLimiter, sources: list[Ip], kind: int = HELLO, now: float = 0.0) -> int:
    """Return how many of the datagrams, one from each source, are admitted."""
    count = 0
    for source in sources:
        with contextlib.suppress(RemoteError):
            gate.check(kind, source, now)
            count += 1
    return count


def addresses(count: int) -> list[Ip]:
    """Return so many made-up addresses."""
    return [Ip(b"\x0b" + number.to_bytes(3, "big")) for number in range(count)]


@pytest.mark.parametrize("kind", [HELLO, JOIN, JOIN_HELLO, JOIN_REQUEST, NOTICE, 77])
@pytest.mark.parametrize("source", [MEMBER, STRANGER])
def test_one_source_has_its_burst_and_its_rate(kind: int, source: Ip) -> None:
    """Then so many a second, member or not."""
    one = gate()
    assert admitted(one, [source] * 1000, kind) == limits.HANDSHAKES_PER_SOURCE_BURST
    assert admitted(one, [source] * 1000, kind, now=1.0) == limits.HANDSHAKES_PER_SOURCE_PER_S


def test_unknown_sources_share_an_allowance_of_their_own() -> None:
    """A flood from new addresses is cut to the shared rate; members pass."""
    one = gate()
    flood = addresses(10_000)
    assert admitted(one, flood) == limits.STRANGERS_BURST
    assert admitted(one, flood, now=1.0) == limits.STRANGERS_PER_S
    assert admitted(one, [MEMBER] * 10, now=1.0) == 10


def test_the_drop_has_its_reason() -> None:
    """It is counted as `rate-limited`."""
    one = gate()
    admitted(one, [STRANGER] * 1000)
    with pytest.raises(RemoteError, match="rate-limited"):
        one.check(HELLO, STRANGER, 0.0)


def test_data_is_not_counted() -> None:
    """The keys of an established session are derived already."""
    assert admitted(gate(), [STRANGER] * 5000, DATA) == 5000


def test_sources_are_remembered_up_to_a_bound() -> None:
    """The source unseen for longest is forgotten first; busy ones stay."""
    one = gate()
    assert admitted(one, [MEMBER] * 200) == limits.HANDSHAKES_PER_SOURCE_BURST
    for source in addresses(limits.GATE_SOURCES_MAX + 500):
        admitted(one, [source])
        admitted(one, [MEMBER])
    assert len(one._sources) == limits.GATE_SOURCES_MAX
    assert admitted(one, [MEMBER]) == 0
