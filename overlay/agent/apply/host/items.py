"""DNS records, exposed networks, published ports and plugs as a plan compares them, and back."""

from __future__ import annotations

from overlay.core.apply.items import DeclaredItem
from overlay.core.dataplane.published_port import PublishedPort
from overlay.core.declared.host_objects import (
    DeclaredExposure,
    DeclaredPlug,
    DeclaredPort,
    DeclaredRecord,
)
from overlay.model import Ip, ip_text, parse_ip

DNS, EXPOSE, PUBLISH, PLUG = "dns", "expose", "publish", "plug"


def record_item(record: DeclaredRecord, path: str = "") -> DeclaredItem:
    """Return a DNS record."""
    ips = tuple(ip_text(ip) for ip in sorted(set(record.ips)))
    return DeclaredItem(
        DNS,
        (record.network, record.name),
        {"network": record.network, "ips": ips},
        record.owner,
        path,
    )


def record_of(item: DeclaredItem) -> DeclaredRecord:
    """Return the DNS record of an item."""
    ips = item.settings["ips"]
    assert isinstance(ips, tuple), "a list of texts"
    return DeclaredRecord(item.identity[0], item.identity[1], tuple(map(parse_ip, ips)), item.owner)


def exposure_item(exposure: DeclaredExposure, path: str = "") -> DeclaredItem:
    """Return an exposed or hidden network."""
    return DeclaredItem(
        EXPOSE,
        (exposure.host, exposure.network),
        {"network": exposure.network, "exposed": exposure.exposed},
        exposure.owner,
        path,
    )


def exposure_of(item: DeclaredItem) -> DeclaredExposure:
    """Return the exposure of an item."""
    host, network = item.identity
    return DeclaredExposure(host, network, bool(item.settings["exposed"]), item.owner)


def port_item(port: DeclaredPort, path: str = "") -> DeclaredItem:
    """Return a published port."""
    return DeclaredItem(
        PUBLISH,
        (port.host, port.place),
        {"network": port.network, "name": port.name, "port": port.port},
        port.owner,
        path,
    )


def port_of(item: DeclaredItem) -> DeclaredPort:
    """Return the published port of an item."""
    host, place = item.identity
    numbers, _, protocol = place.partition("/")
    ip, _, host_port = numbers.rpartition(":")
    return DeclaredPort(
        host,
        protocol,
        Ip(b"") if ip == "*" else parse_ip(ip.strip("[]")),
        int(host_port),
        str(item.settings["network"]),
        str(item.settings["name"]),
        int(str(item.settings["port"])),
        item.owner,
    )


def local_port(host: str, network: str, port: PublishedPort) -> DeclaredPort:
    """Return a port that a command published on a host, as one that a file could declare."""
    return DeclaredPort(
        host, port.protocol, port.host_ip, port.host_port, network, port.name, port.port
    )


def plug_item(plug: DeclaredPlug, path: str = "") -> DeclaredItem:
    """Return a plugged interface."""
    return DeclaredItem(
        PLUG,
        (plug.host, plug.network, plug.interface),
        {"network": plug.network, "segment": plug.segment},
        plug.owner,
        path,
    )


def plug_of(item: DeclaredItem) -> DeclaredPlug:
    """Return the plug of an item."""
    host, network, interface = item.identity
    return DeclaredPlug(host, network, interface, str(item.settings["segment"]), item.owner)
