"""SRV records of services (RFC 2782), such as `_http._tcp.web.blue.overlay`.

Owns: which name asks for a service's port, and what answers it. Does not: know the DNS format.
"""

from __future__ import annotations

from typing import NamedTuple

from overlay.core.services.derivation import PlacedService


class ServiceRecord(NamedTuple):
    """Where a service answers: a name without the domain, a port, and its share."""

    target: str
    port: int
    weight: int


def split_srv_name(labels: str) -> tuple[str, str, str] | None:
    """Return port name, protocol and the rest of `_http._tcp.web`; None for another name."""
    parts = labels.split(".", 2)
    if len(parts) < 3 or not all(part.startswith("_") for part in parts[:2]):
        return None
    return parts[0][1:], parts[1][1:], parts[2]


def records_of(entry: PlacedService, port_name: str, protocol: str) -> list[ServiceRecord]:
    """Return the records of a port that is known by a name, or by its number.

    They name the service, or its backends where it has no virtual address.
    """
    service = entry.service
    found = []
    for port in service.ports:
        if port.protocol != protocol or port_name not in (port.name.lower(), str(port.port)):
            continue
        if service.ips:
            found.append(ServiceRecord(service.name, port.port, 1))
        else:
            found += [
                ServiceRecord(each.endpoint.name, port.target, each.weight)
                for each in entry.ready()
            ]
    return found
