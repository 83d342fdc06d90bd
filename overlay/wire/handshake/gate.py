"""Limit what costs more than a mac before anything is proven: hellos, joins, admissions.

A datagram without its receiver's mac1 is dropped for the price of a hash. Of the others, so many a
second are let through whatever their address; beyond that, a sender must prove its address by a
cookie, and each address that did so has an allowance of its own. So no flood from any number of
made-up addresses takes more than that of the event loop's time, or shuts anyone out. Memory is
bounded by `limits.GATE_SOURCES_MAX`. Does not: know what the datagrams contain.
"""

from __future__ import annotations

from collections.abc import Callable

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Ip
from overlay.wire.codec.datagram import TOO_SHORT, UdpEndpoint
from overlay.wire.handshake.cookies import MACS_SIZE, CookieMaker, has_mac1, has_mac2
from overlay.wire.handshake.token_bucket import TokenBucket

RATE_LIMITED = "rate-limited"
WRONG_RECEIVER = "wrong-receiver"


class HandshakeGate:
    """Admits a limited number of datagrams that start something."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._maker = CookieMaker(random_bytes)
        self._unproven = TokenBucket(
            limits.HANDSHAKES_UNPROVEN_PER_S, limits.HANDSHAKES_UNPROVEN_BURST, 0.0
        )
        self._replies = TokenBucket(limits.COOKIES_PER_S, limits.COOKIES_BURST, 0.0)
        self._sources: dict[Ip, TokenBucket] = {}

    def check(
        self, key: bytes, index: int, data: bytes, source: UdpEndpoint, now: float
    ) -> bytes | None:
        """Return None if a datagram may be processed, or the cookie to send instead.

        `key` is the receiver's, `index` the sender's in the reply. Raises RemoteError.
        """
        if len(data) <= MACS_SIZE:
            raise RemoteError(TOO_SHORT)
        if not has_mac1(key, data):
            raise RemoteError(WRONG_RECEIVER)
        if any(data[-MACS_SIZE // 2 :]) and any(
            has_mac2(cookie, data) for cookie in self._maker.cookies(source, now)
        ):
            if not self._of_source(source.address, now).take(now):
                raise RemoteError(RATE_LIMITED)
            return None
        if self._unproven.take(now):
            return None
        if not self._replies.take(now):
            raise RemoteError(RATE_LIMITED)
        return self._maker.reply(key, index, data, source, now)

    def _of_source(self, source: Ip, now: float) -> TokenBucket:
        known = self._sources.pop(source, None)
        if known is None:
            known = TokenBucket(
                limits.HANDSHAKES_PER_SOURCE_PER_S, limits.HANDSHAKES_PER_SOURCE_BURST, now
            )
            if len(self._sources) >= limits.GATE_SOURCES_MAX:
                del self._sources[next(iter(self._sources))]  # the longest unseen
        self._sources[source] = known
        return known
