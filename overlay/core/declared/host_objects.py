"""Declared objects of hosts and names: DNS records, ports, exposed networks, plugs.

Each names its network and host as people do, so that a declaration also holds for a network that
is removed and created again. `owner`: of the file that declared it, or empty.

Owns: these values, and their bodies. Does not: know whether a network or host exists.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from overlay import limits
from overlay.core.declared import bodies
from overlay.core.declared.kinds import (
    DECLARED_PLUG_KIND,
    DNS_RECORD_KIND,
    EXPOSURE_KIND,
    PUBLISHED_PORT_KIND,
)
from overlay.core.declared.objects import DeclaredObjects
from overlay.model import Ip, ip_text, parse_ip, valid_name

_PROTOCOLS = ("tcp", "udp")
INTERFACE_NAME = r"[A-Za-z0-9][A-Za-z0-9_.:@-]*"
"""The names of interfaces that can be plugged; the kernel allows more."""


@dataclass(frozen=True, slots=True)
class DeclaredRecord:
    """A DNS record of a network; without addresses, one that is removed wherever it was added."""

    kind = DNS_RECORD_KIND
    network: str
    name: str
    ips: tuple[Ip, ...]
    owner: str = ""

    @property
    def object_name(self) -> str:
        """Return the name of the declared object."""
        return _digest(self.network, self.name)

    def body(self) -> bytes:
        """Return the body of the declared object; raises ConflictError if it is too large."""
        fields = [self.network, self.name, [ip_text(ip) for ip in self.ips], self.owner]
        return bodies.encode(fields, f"DNS record {self.network}/{self.name}")


@dataclass(frozen=True, slots=True)
class DeclaredPort:
    """A port of a host that maps to a name on a network."""

    kind = PUBLISHED_PORT_KIND
    host: str
    protocol: str
    host_ip: Ip  # empty: every address of the host
    host_port: int
    network: str
    name: str
    port: int
    owner: str = ""

    @property
    def object_name(self) -> str:
        """Return the name of the declared object: one for each place on a host."""
        return _digest(self.host, self.protocol, self.host_ip.hex(), str(self.host_port))

    @property
    def place(self) -> str:
        """Return the place on the host as people write it, such as `*:8080/tcp`."""
        ip = ip_text(self.host_ip) if self.host_ip else "*"
        shown = f"[{ip}]" if ":" in ip else ip
        return f"{shown}:{self.host_port}/{self.protocol}"

    def body(self) -> bytes:
        """Return the body of the declared object; raises ConflictError if it is too large."""
        ip = ip_text(self.host_ip) if self.host_ip else ""
        fields = [self.host, self.protocol, ip, self.host_port, self.network, self.name, self.port]
        return bodies.encode([*fields, self.owner], f"published port {self.host}/{self.place}")


@dataclass(frozen=True, slots=True)
class DeclaredExposure:
    """Whether a host has an endpoint on a network."""

    kind = EXPOSURE_KIND
    host: str
    network: str
    exposed: bool
    owner: str = ""

    @property
    def object_name(self) -> str:
        """Return the name of the declared object."""
        return _digest(self.host, self.network)

    def body(self) -> bytes:
        """Return the body of the declared object; raises ConflictError if it is too large."""
        fields = [self.host, self.network, self.exposed, self.owner]
        return bodies.encode(fields, f"exposure {self.host}/{self.network}")


@dataclass(frozen=True, slots=True)
class DeclaredPlug:
    """A host's interface to use as a port of a network. Agents before 0.4.0 ignore it."""

    kind = DECLARED_PLUG_KIND
    host: str
    network: str
    interface: str
    segment: str
    owner: str = ""

    @property
    def object_name(self) -> str:
        """Return the name of the declared object."""
        return _digest(self.host, self.network, self.interface)

    def body(self) -> bytes:
        """Return the body of the declared object; raises ConflictError if it is too large."""
        fields = [self.host, self.network, self.interface, self.segment, self.owner]
        return bodies.encode(fields, f"plug {self.host}/{self.network}/{self.interface}")


_Kind = TypeVar("_Kind", DeclaredRecord, DeclaredPort, DeclaredExposure, DeclaredPlug)


def existing(objects: DeclaredObjects, kind: type[_Kind]) -> Iterator[_Kind]:
    """Yield the objects of a kind; what no agent writes is skipped."""
    for placed in objects.existing(kind.kind):
        found = bodies.decode(placed.value.body, _DECODERS[kind])
        # An object under the name of another one could be changed by nobody who means it.
        if isinstance(found, kind) and found.object_name == placed.value.name:
            yield found


def _digest(*parts: str) -> str:
    """Return a valid name for an object that longer texts identify, whatever their case."""
    joined = "\0".join(part.lower() for part in parts).encode()
    return hashlib.blake2s(joined, digest_size=16).hexdigest()


def _name(value: Any) -> str:
    found = bodies.require(value, str)
    if not valid_name(found):
        raise ValueError(found)
    return found


def _owner(value: Any) -> str:
    return _name(value) if value else bodies.require(value, str)


def _port(value: Any) -> int:
    found = bodies.require(value, int)
    if not 1 <= found <= 65_535:
        raise ValueError(found)
    return found


def _record(network: Any, name: Any, ips: Any, owner: Any, *_: Any) -> DeclaredRecord:
    texts = bodies.require(ips, list, limits.CUSTOM_RECORD_IPS_MAX)
    packed = tuple(parse_ip(bodies.require(text, str)) for text in texts)
    return DeclaredRecord(_name(network), _name(name), packed, _owner(owner))


def _published(
    host: Any, protocol: Any, host_ip: Any, host_port: Any, network: Any, name: Any, port: Any,
    owner: Any, *_: Any,
) -> DeclaredPort:  # fmt: skip
    if protocol not in _PROTOCOLS:
        raise ValueError(protocol)
    ip = bodies.require(host_ip, str)
    return DeclaredPort(
        _name(host),
        protocol,
        parse_ip(ip) if ip else Ip(b""),
        _port(host_port),
        _name(network),
        _name(name),
        _port(port),
        _owner(owner),
    )


def _exposure(host: Any, network: Any, exposed: Any, owner: Any, *_: Any) -> DeclaredExposure:
    return DeclaredExposure(
        _name(host), _name(network), bodies.require(exposed, bool), _owner(owner)
    )


def _plug(
    host: Any, network: Any, interface: Any, segment: Any, owner: Any, *_: Any
) -> DeclaredPlug:
    name = bodies.require(interface, str, limits.INTERFACE_NAME_LENGTH_MAX)
    if not re.fullmatch(INTERFACE_NAME, name):
        raise ValueError(name)
    return DeclaredPlug(_name(host), _name(network), name, _name(segment), _owner(owner))


_DECODERS: dict[type, Any] = {
    DeclaredRecord: _record,
    DeclaredPort: _published,
    DeclaredExposure: _exposure,
    DeclaredPlug: _plug,
}
