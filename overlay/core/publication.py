"""What it means to publish a port: the words for it, and which two of them can't stand together.

Owns: the grammar `[HOST:]CONTAINER[/tcp|udp]`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

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


class Publication(NamedTuple):
    """A port of this host that leads to whichever container has a name on a network."""

    protocol: str
    host_ip: Ip  # empty: every address of the host
    host_port: int
    vni: Vni
    name: str
    port: int

    @property
    def place(self) -> str:
        """Return the place on the host as text: what there can be only one of."""
        text = ip_text(self.host_ip) if self.host_ip else "*"
        return f"[{text}]:{self.host_port}" if ":" in text else f"{text}:{self.host_port}"


def parse_pair(text: str) -> PortPair:
    """Return the ports that `8080:80/tcp` means; raises UsageError."""
    numbers, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    host, _, port = numbers.rpartition(":")
    try:
        found = PortPair(protocol, _number(host or port), _number(port))
    except ValueError:
        found = None
    if found is None or protocol not in PROTOCOLS:
        raise UsageError(
            f"{text!r} is no port to publish",
            why="it is HOST:CONTAINER, numbers from 1 to 65535, with /udp behind it for UDP",
            hint="Such as 8080:80, or 53:53/udp",
            field="ports",
        )
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= _PORT_MAX:
        raise ValueError(text)
    return int(text)


def meant(wanted: PortPair, published: Publication) -> bool:
    """Say whether who asks for a pair means a publication: the host's port alone is enough, and
    is read as a pair of twice the same."""
    ports = {(published.host_port, published.port), (published.host_port, published.host_port)}
    return wanted.protocol == published.protocol and (wanted.host_port, wanted.port) in ports


def rival(wanted: Publication, known: Iterable[Publication]) -> Publication | None:
    """Return the publication whose place on the host this one would share; None if it is free."""
    for other in known:
        same_port = (other.protocol, other.host_port) == (wanted.protocol, wanted.host_port)
        meet = not other.host_ip or not wanted.host_ip or other.host_ip == wanted.host_ip
        if same_port and meet and other != wanted:
            return other
    return None
