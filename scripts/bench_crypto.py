#!/usr/bin/env python3
"""Measure the cost of the control plane's cryptography on one core.

.venv/bin/python scripts/bench_crypto.py      (docs/benchmarks/crypto.md holds the last run)
"""

from __future__ import annotations

import contextlib
import datetime as dt
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from overlay.core.log.store import Store  # noqa: E402
from overlay.core.log.writer import LogWriter  # noqa: E402
from overlay.core.protocol.records import Scope, Segment  # noqa: E402
from overlay.errors import RemoteError  # noqa: E402
from overlay.model import Endpoint, Ip, Vni, mac_for  # noqa: E402
from overlay.wire.codec.datagram import HELLO, VERSION, UdpEndpoint  # noqa: E402
from overlay.wire.identity.authority import TrustAnchor  # noqa: E402
from overlay.wire.identity.signatures import KeySigner  # noqa: E402
from tests.wire.conftest import AUTHORITY, Host, Wire  # noqa: E402

ROUNDS = 7
DATAGRAMS = 10_000
MEMBERS = 500
HANDSHAKES = 2_000
RECORDS = 20_000
VNI = Vni(0x800001)


def per_second(count: int, work: Callable[[], object]) -> float:
    """Return the rate of `work` on `count` items per second: the median of some rounds."""
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        found.append(count / (time.process_time() - started))
    return statistics.median(found)


def rows() -> list[tuple[str, str]]:
    """Run all measurements; return (name, value) pairs."""
    wire = Wire(1)
    one, other = wire.host(1), wire.host(2)
    wire.meet(one, other)
    source = UdpEndpoint(one.card.address, 7948)
    found = []
    for size in (64, 1100):
        payload = bytes(size)
        sealed: list[bytes] = []

        def seal(payload: bytes = payload, sealed: list[bytes] = sealed) -> None:
            sealed[:] = [
                one.sessions.seal(other.node_id, payload, wire.now)[0].data
                for _ in range(DATAGRAMS)
            ]

        rate = per_second(DATAGRAMS, seal)
        found.append((f"one datagram of {size} bytes sealed", f"{1e6 / rate:.1f} us"))

        def unseal(sealed: list[bytes] = sealed, seal: Callable[[], None] = seal) -> float:
            seal()  # each can be opened only once: the second time it is a replay
            started = time.process_time()
            for data in sealed:
                other.sessions.open(data, source, wire.now)
            return (time.process_time() - started) / DATAGRAMS

        took_s = statistics.median(unseal() for _ in range(ROUNDS))
        found.append((f"one datagram of {size} bytes opened", f"{1e6 * took_s:.1f} us"))
    junk = bytes(sealed[0][:-1]) + b"\0"
    rate = per_second(DATAGRAMS, lambda: refused(other, junk, source, wire.now))
    found.append(("one forged datagram of 1,100 bytes refused", f"{1e6 / rate:.1f} us"))
    hello = bytes([VERSION, HELLO]) + bytes(500)
    rate = per_second(DATAGRAMS, lambda: refused(other, hello, source, wire.now))
    found.append(("one hello without the receiver's mac refused", f"{1e6 / rate:.1f} us"))
    return found + handshakes(wire) + members(wire) + records(wire)


def refused(host: Host, data: bytes, source: UdpEndpoint, now: float) -> None:
    """Let a host refuse a datagram, `DATAGRAMS` times."""
    for _ in range(DATAGRAMS):
        with contextlib.suppress(RemoteError):
            host.sessions.open(data, source, now)


def handshakes(wire: Wire) -> list[tuple[str, str]]:
    """Measure the handshakes of two members that know each other."""
    one, other = wire.host(5), wire.host(6)
    wire.meet(one, other)
    made: list[float] = []
    answered: list[float] = []
    finished: list[float] = []
    for _ in range(HANDSHAKES):
        one.sessions.mark_unresponsive(other.node_id)
        wire.now += 1.1
        times = [time.process_time()]
        hello, sealed = one.sessions.seal(other.node_id, b"", wire.now)
        times.append(time.process_time())
        (response,) = other.sessions.open(hello.data, wire.source(hello), wire.now).replies
        times.append(time.process_time())
        confirm = one.sessions.open(response.data, wire.source(response), wire.now).replies
        times.append(time.process_time())
        for each in (sealed, *confirm):
            other.sessions.open(each.data, wire.source(each), wire.now)
        for kept, start, end in zip((made, answered, finished), times[:-1], times[1:], strict=True):
            kept.append(end - start)
    hello_us, response_us, end_us = (
        1e6 * statistics.median(kept) for kept in (made, answered, finished)
    )
    both = (hello_us + end_us + response_us) / 2
    return [
        ("handshake: hello made", f"{hello_us:.0f} us"),
        ("handshake: hello answered", f"{response_us:.0f} us"),
        ("handshake: response opened", f"{end_us:.0f} us"),
        ("handshake: each side, on average", f"{both / 1000:.2f} ms"),
    ]


def members(wire: Wire) -> list[tuple[str, str]]:
    """Measure verifying cards: the member's signature and the authority's certificate."""
    host = wire.host(3)
    signer, anchor = (
        KeySigner(host.identity, TrustAnchor(AUTHORITY.anchor)),
        TrustAnchor(AUTHORITY.anchor),
    )

    def verify() -> None:
        for _ in range(MEMBERS):
            assert signer.is_signed_by_subject(host.card)
            assert anchor.verify_certificate(host.card)

    return [("members verified (card and certificate)", f"{per_second(MEMBERS, verify):,.0f} /s")]


def records(wire: Wire) -> list[tuple[str, str]]:
    """Measure signing and verifying endpoint records, by segment."""
    host = wire.host(4)
    signer = KeySigner(host.identity, TrustAnchor(AUTHORITY.anchor))
    endpoints = [
        Endpoint(number.to_bytes(8, "big"), VNI, f"web{number}", mac_for(VNI, ip), (ip,))
        for number in range(RECORDS)
        for ip in [Ip((0x0A200000 + number).to_bytes(4, "big"))]
    ]
    segments: list[Segment] = []

    def write() -> None:
        store = Store(host.node_id)
        store.accept_card(host.card)
        author = LogWriter(store, signer)
        segments[:] = [
            segment
            for first in range(0, RECORDS, 80)
            for segment in author.write(Scope(VNI), endpoints[first : first + 80])
        ]

    signed = per_second(RECORDS, write)

    def verify() -> None:
        for segment in segments:
            assert signer.verify_segment(segment, host.card)

    verified = per_second(RECORDS, verify)
    each = RECORDS / len(segments)
    return [
        (f"endpoint records signed ({each:.1f} to a segment)", f"{signed:,.0f} /s"),
        ("endpoint records verified", f"{verified:,.0f} /s"),
        ("100,000 endpoint records verified", f"{100_000 / verified:.2f} s"),
    ]


def main() -> int:
    """Print the results as Markdown."""
    print("| what | measured |\n|---|---|")
    for what, value in rows():
        print(f"| {what} | {value} |")
    print(
        f"\n{dt.datetime.now(dt.UTC):%Y-%m-%d}, {platform.machine()}, one core, Python "
        f"{platform.python_version()}, Linux {platform.release()}; processor time, medians of "
        f"{ROUNDS} rounds."
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
