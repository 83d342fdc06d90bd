"""What it means to publish a port: the words for it, and which two of them can't stand together.

Owns: the grammar `[HOST:]CONTAINER[/tcp|udp]`, each a number or a range. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from overlay import limits
from overlay.errors import UsageError
from overlay.model import Ip, Vni, ip_text

PROTOCOLS: Final = ("tcp", "udp")
_PORT_MAX: Final = 65_535


class PortPair(NamedTuple):
    """A port of the host, and the port of the container that it leads to."""

    protocol: str
    host_port: int
    port: int

    def __str__(self) -> str:
        return f"{self.host_port}:{self.port}/{self.protocol}"


class PublishedPort(NamedTuple):
    """A port of this host that leads to whichever container has a name on a network."""

    protocol: str
    host_ip: Ip  # empty: every address of the host
    host_port: int
    vni: Vni
    name: str
    port: int

    @property
    def host_binding(self) -> str:
        """Return the place on the host as text: what there can be only one of."""
        text = ip_text(self.host_ip) if self.host_ip else "*"
        return f"[{text}]:{self.host_port}" if ":" in text else f"{text}:{self.host_port}"


def parse_pairs(text: str) -> list[PortPair]:
    """Return the ports that `8080:80/tcp` or `8000-8009:80-89/tcp` means; raises UsageError."""
    numbers, slash, protocol = text.partition("/")
    host, _, port = numbers.rpartition(":")
    try:
        protocol = _protocol(protocol) if slash else "tcp"
        pairs = zip(_numbers(host or port), _numbers(port), strict=True)
        return [PortPair(protocol, *pair) for pair in pairs]
    except ValueError:
        raise UsageError(
            f"{text!r} is no port to publish",
            why="it is HOST:CONTAINER, numbers from 1 to 65535 or ranges of one length, at most "
            f"{limits.PUBLISHED_PORTS_MAX} ports, with /udp behind it for UDP",
            hint="Such as 8080:80, 53:53/udp, 8000-8009:80-89, or 8080 for twice the same",
            field="ports",
        ) from None


def _protocol(text: str) -> str:
    if text not in PROTOCOLS:
        raise ValueError(text)
    return text


def _numbers(text: str) -> range:
    first, dash, last = text.partition("-")
    found = range(_number(first), _number(last if dash else first) + 1)
    if not 0 < len(found) <= limits.PUBLISHED_PORTS_MAX:
        raise ValueError(text)
    return found


def _number(text: str) -> int:
    if (
        not (text.isascii() and text.isdecimal())
        or len(text) > 5
        or not 1 <= int(text) <= _PORT_MAX
    ):
        raise ValueError(text)
    return int(text)


def matches(wanted: PortPair, published: PublishedPort) -> bool:
    """Say whether who asks for a pair means a publication: the host's port alone is enough, and
    is read as a pair of twice the same."""
    ports = {(published.host_port, published.port), (published.host_port, published.host_port)}
    return wanted.protocol == published.protocol and (wanted.host_port, wanted.port) in ports


def conflicting(wanted: PublishedPort, known: Iterable[PublishedPort]) -> PublishedPort | None:
    """Return the publication whose place on the host this one would share; None if it is free."""
    for other in known:
        same_port = (other.protocol, other.host_port) == (wanted.protocol, wanted.host_port)
        meet = not other.host_ip or not wanted.host_ip or other.host_ip == wanted.host_ip
        if same_port and meet and other != wanted:
            return other
    return None
