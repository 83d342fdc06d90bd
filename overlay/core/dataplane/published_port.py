"""Published ports: their syntax, and conflicts between them.

Owns: the grammar `[HOST:]CONTAINER[/tcp|udp]`, each a number or a range.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from overlay import limits
from overlay.errors import UsageError
from overlay.model import Ip, Vni, ip_text

PROTOCOLS: Final = ("tcp", "udp")
_PORT_MAX: Final = 65_535


ENDPOINT_OWNER: Final = "endpoint/"
DECLARED_OWNER: Final = "declared/"


class PortPair(NamedTuple):
    """A port of the host, and the port of the container that it maps to."""

    protocol: str
    host_port: int
    port: int

    def __str__(self) -> str:
        return f"{self.host_port}:{self.port}/{self.protocol}"


class PortRequest(NamedTuple):
    """A port of a container to publish, on the first of some ports of the host that is free."""

    protocol: str
    host_ip: Ip  # as in PublishedPort
    host_ports: range
    port: int


class PortHolder(NamedTuple):
    """A container's runtime, which may keep the container's ports with sockets of its own."""

    container_id: str  # named in the command of the process that supervises the container
    pids: tuple[int, ...] = ()  # other processes of the runtime


class PublishedPort(NamedTuple):
    """A port of this host, mapped to the container with a name on a network."""

    protocol: str
    host_ip: Ip  # empty: every address of the host; 0.0.0.0 or ::, every one of that family
    host_port: int
    vni: Vni
    name: str
    port: int
    # With whom it ends: Docker's id of an endpoint, ENDPOINT_OWNER and an endpoint's hex id, or
    # DECLARED_OWNER and a declared object. Empty: a command's.
    owner: str = ""

    @property
    def mapping(self) -> PublishedPort:
        """Return the port without its owner: what makes it the same as another."""
        return self._replace(owner="")

    @property
    def bound_ip(self) -> Ip:
        """Return the one host address of the port; empty if it is on every address."""
        return self.host_ip if any(self.host_ip) else Ip(b"")

    @property
    def host_binding(self) -> str:
        """Return the host address and port as text: the key of a published port."""
        text = ip_text(self.host_ip) if self.host_ip else "*"
        return f"[{text}]:{self.host_port}" if ":" in text else f"{text}:{self.host_port}"


def parse_pairs(text: str, field: str = "ports", form: str = "HOST:CONTAINER") -> list[PortPair]:
    """Return the ports of a text like `8080:80/tcp` or `8000-8009:80-89`.

    Raises UsageError, with the name of the request's field; `form` names the two ports there.
    """
    numbers, slash, protocol = text.partition("/")
    host, _, port = numbers.rpartition(":")
    try:
        protocol = _protocol(protocol) if slash else "tcp"
        pairs = zip(_numbers(host or port), _numbers(port), strict=True)
        return [PortPair(protocol, *pair) for pair in pairs]
    except ValueError:
        raise UsageError(
            f"invalid port {text!r}",
            why=f"expected {form}, numbers from 1 to 65535 or ranges of equal length, "
            f"at most {limits.PUBLISHED_PORTS_MAX} ports, followed by /udp for UDP",
            hint="Such as 8080:80, 53:53/udp, 8000-8009:80-89, or 8080 for 8080:8080",
            field=field,
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
    """Return whether a pair given by a user means a published port.

    The host's port alone is enough; it is parsed as a pair of equal ports.
    """
    ports = {(published.host_port, published.port), (published.host_port, published.host_port)}
    return wanted.protocol == published.protocol and (wanted.host_port, wanted.port) in ports


def conflicting(wanted: PublishedPort, known: Iterable[PublishedPort]) -> PublishedPort | None:
    """Return the published port that blocks this one on the host, or None."""
    for other in known:
        same_port = (other.protocol, other.host_port) == (wanted.protocol, wanted.host_port)
        if same_port and _overlap(other, wanted) and other.mapping != wanted.mapping:
            return other
    return None


def _overlap(first: PublishedPort, second: PublishedPort) -> bool:
    """Return whether two ports are on a common address of the host."""
    if not first.host_ip or not second.host_ip:
        return True
    same_family = len(first.host_ip) == len(second.host_ip)
    return same_family and (
        not first.bound_ip or not second.bound_ip or first.host_ip == second.host_ip
    )
