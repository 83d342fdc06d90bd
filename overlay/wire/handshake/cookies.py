"""Two macs at the end of a datagram that starts something, and cookies between the two sides.

```
 mac1 = BLAKE2s(key of the receiver, datagram)          the sender knows whom it speaks to
 mac2 = BLAKE2s(cookie, datagram || mac1), or zeros     the sender receives at its address
 cookie = BLAKE2s(secret of two minutes, address || port of the sender)
```
The scheme is WireGuard's (Donenfeld, NDSS 2017, section 5.3). The key of the receiver is made of a
node's seal key for a hello, and of the cluster's id for joins and admissions, whose sender does not
know the receiver. A cookie travels encrypted under that key, bound to the mac1 that it answers, so
it is worthless to a sender of forged addresses.

Owns: these bytes, and what a sender remembers. Does not: decide when a cookie is needed (`gate`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay import limits
from overlay.wire.codec.datagram import UdpEndpoint
from overlay.wire.codec.session_header import SHORT_SIZE, cookie_header

MAC_SIZE = 16
MACS_SIZE = 2 * MAC_SIZE
COOKIE_SIZE = 16
_NONCE_SIZE = 16
_Kept = TypeVar("_Kept")
_NO_MAC = bytes(MAC_SIZE)
REPLY_SIZE = SHORT_SIZE + _NONCE_SIZE + COOKIE_SIZE + limits.TAG_SIZE
assert REPLY_SIZE >= limits.DATAGRAM_SIZE_MIN


def receiver_key(name: bytes) -> bytes:
    """Return the key of mac1 for a receiver: its seal key, or the cluster's id."""
    return hashlib.blake2s(b"overlayd/2 mac1\0" + name).digest()


def mac(key: bytes, data: bytes) -> bytes:
    """Return the 16-byte mac of some data."""
    return hashlib.blake2s(data, key=key, digest_size=MAC_SIZE).digest()


def has_mac1(key: bytes, data: bytes) -> bool:
    """Return whether a datagram ends with the right mac1, before its mac2."""
    return hmac.compare_digest(mac(key, data[:-MACS_SIZE]), data[-MACS_SIZE:-MAC_SIZE])


def has_mac2(cookie: bytes, data: bytes) -> bool:
    """Return whether a datagram ends with the mac2 of a cookie."""
    return hmac.compare_digest(mac(cookie, data[:-MAC_SIZE]), data[-MAC_SIZE:])


def cookie_reply(key: bytes, index: int, data: bytes, cookie: bytes, nonce: bytes) -> bytes:
    """Return the datagram that carries a cookie to the sender of `data`."""
    mac1 = data[-MACS_SIZE:-MAC_SIZE]
    header = cookie_header(index)
    return header + nonce + _box(key, nonce).encrypt(bytes(12), cookie, header + mac1)


class CookieJar:
    """The datagrams that one process sent, remembered to use a cookie in the next."""

    def __init__(self) -> None:
        self._cookies: dict[UdpEndpoint, tuple[bytes, float]] = {}
        self._sent: dict[UdpEndpoint, tuple[bytes, bytes]] = {}  # key and mac1 of the last datagram

    def protect(self, to: UdpEndpoint, key: bytes, data: bytes, now: float) -> bytes:
        """Return a datagram with both macs, to be sent to an address."""
        mac1 = mac(key, data)
        _remember(self._sent, to, (key, mac1))
        mac2 = mac(self._cookies[to][0], data + mac1) if self.has_cookie(to, now) else _NO_MAC
        return data + mac1 + mac2

    def has_cookie(self, to: UdpEndpoint, now: float) -> bool:
        """Return whether the next datagram to an address carries a cookie."""
        return now < self._cookies.get(to, (b"", 0.0))[1]

    def accept(self, source: UdpEndpoint, data: bytes, now: float) -> bool:
        """Keep the cookie in a reply; return whether it answers the last datagram sent there."""
        key, mac1 = self._sent.get(source, (b"", b""))
        if len(data) != REPLY_SIZE or not key:
            return False
        header, nonce = data[:SHORT_SIZE], data[SHORT_SIZE : SHORT_SIZE + _NONCE_SIZE]
        try:
            cookie = _box(key, nonce).decrypt(
                bytes(12), data[SHORT_SIZE + _NONCE_SIZE :], header + mac1
            )
        except InvalidTag:
            return False
        del self._sent[source]  # one reply for each datagram
        _remember(self._cookies, source, (cookie, now + limits.COOKIE_SECRET_S))
        return True


class CookieMaker:
    """The receiver's side: cookies that need no memory for each sender."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._secrets: list[bytes] = []  # the present one and the one before
        self._made_at = 0.0

    def cookies(self, source: UdpEndpoint, now: float) -> list[bytes]:
        """Return the cookies that are valid for an address; the first is the present one."""
        if not self._secrets or now - self._made_at >= limits.COOKIE_SECRET_S:
            self._secrets = [self._random_bytes(32), *self._secrets[:1]]
            self._made_at = now
        name = source.address + source.port.to_bytes(2, "big")
        return [mac(secret, name) for secret in self._secrets]

    def reply(self, key: bytes, index: int, data: bytes, source: UdpEndpoint, now: float) -> bytes:
        """Return the datagram that gives the sender of `data` its cookie."""
        nonce = self._random_bytes(_NONCE_SIZE)
        return cookie_reply(key, index, data, self.cookies(source, now)[0], nonce)


def _box(key: bytes, nonce: bytes) -> AESGCM:
    """Return the cipher of one reply; its key is used once."""
    return AESGCM(hashlib.blake2s(b"overlayd/2 cookie\0" + nonce, key=key).digest())


def _remember(kept: dict[UdpEndpoint, _Kept], place: UdpEndpoint, value: _Kept) -> None:
    kept.pop(place, None)
    if len(kept) >= limits.COOKIES_KEPT_MAX:
        del kept[next(iter(kept))]
    kept[place] = value
