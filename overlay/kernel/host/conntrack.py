"""Delete tracked UDP connections to the old target of a published port or a service.

The rules that translate apply only to the first packet of a connection. For the kernel, UDP packets
from the same source port belong to the existing connection, and would keep going to the previous
target, or nowhere. Established TCP connections are left alone, as they end by themselves.

Owns: the messages of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from overlay.kernel.netlink import codec, neighbor_rows
from overlay.kernel.netlink.codec import attribute, attributes
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip

_NETLINK_NETFILTER: Final = 12  # linux/netlink.h
_SUBSYSTEM: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE = 1, 2
_HEADER: Final = struct.Struct(">BBH")  # family, version, resource
_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
_ADDRESSES, _PROTOCOL = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_TARGETS: Final = {2: 2, 10: 4}  # by family: CTA_IP_V4_DST, CTA_IP_V6_DST
_SOURCES: Final = {2: 1, 10: 3}
_NUMBER, _TARGET_PORT = 1, 3
_UDP, _TCP = b"\x11", b"\x06"
_STATUS, _SEEN_REPLY = 3, 2  # CTA_STATUS, IPS_SEEN_REPLY
_NESTED: Final = 0x8000
_FILTER, _FILTER_FLAGS = 25, 1  # Linux 5.8; older kernels dump all
_BY_PROTOCOL, _BY_PORT = 1 << 3, 1 << 5
_FAMILIES: Final = {4: 2, 16: 10}


def forget_udp(kept: Mapping[tuple[int, int], Collection[Ip]]) -> int:
    """Delete the entries of UDP connections to ports of the host.

    Returns the number of deleted entries. `kept` maps (port, address size) to the targets whose
    connections are kept. One dump serves all ports, because each goes through the kernel's whole
    hash table: 50 ms if that has 262,144 buckets, used or not. Raises OSError.
    """
    deleted = 0
    with NetlinkSocket() as host, NetlinkSocket(protocol=_NETLINK_NETFILTER) as tracker:
        own = _own_addresses(host)
        for size in {size for _, size in kept}:
            family = _FAMILIES[size]
            wanted = {
                struct.pack(">H", port): frozenset(map(bytes, ips))
                for (port, of_size), ips in kept.items()
                if of_size == size
            }
            gone = [
                flow
                for flow in flows(tracker, family, _query(family, list(wanted)))
                if flow.protocol == _UDP
                and flow.port in wanted
                and flow.requested in own
                and flow.replying not in wanted[flow.port]
            ]
            deleted += delete_flows(tracker, family, gone)
    return deleted


def _own_addresses(host: NetlinkSocket) -> frozenset[bytes]:
    messages = host.dump(codec.RTM_GETADDR, neighbor_rows.ADDRESS_DUMP)
    names = {neighbor_rows.address_index(message): "" for message in messages}
    found = (neighbor_rows.decode_address(message, names, temporary=True) for message in messages)
    return frozenset(bytes(row.ip) for row in found if row is not None)


def _query(family: int, ports: Sequence[bytes]) -> bytes:
    """Return a dump request for all UDP connections.

    For a single port, it returns only connections to that port.
    """
    protocol, flags = attribute(_NUMBER, _UDP), _BY_PROTOCOL
    if len(ports) == 1:
        protocol, flags = protocol + attribute(_TARGET_PORT, ports[0]), _BY_PROTOCOL | _BY_PORT
    return (
        _HEADER.pack(family, 0, 0)
        + attribute(_ORIGINAL | _NESTED, attribute(_PROTOCOL | _NESTED, protocol))
        + attribute(_FILTER | _NESTED, attribute(_FILTER_FLAGS, struct.pack("=I", flags)))
    )


class Flow(NamedTuple):
    """A tracked connection: what was asked for, and who answers.

    `port` is empty for protocols without one.
    """

    original: bytes  # the encoded tuple, by which it is deleted
    protocol: bytes
    requested: bytes
    port: bytes
    replying: bytes
    is_answered: bool  # an answer has been seen


def flows(tracker: NetlinkSocket, family: int, query: bytes) -> Iterator[Flow]:
    """Yield the connections of a dump request."""
    for message in tracker.dump(_SUBSYSTEM | _GET, query):
        parts = attributes(message.buffer, message.start + 4, message.end)
        original, reply = parts[_ORIGINAL], parts[_REPLY]
        there, back = attributes(original, 0, len(original)), attributes(reply, 0, len(reply))
        protocol = attributes(there[_PROTOCOL], 0, len(there[_PROTOCOL]))
        requested = attributes(there[_ADDRESSES], 0, len(there[_ADDRESSES]))
        replying = attributes(back[_ADDRESSES], 0, len(back[_ADDRESSES]))
        yield Flow(
            original,
            protocol.get(_NUMBER, b""),
            requested.get(_TARGETS[family], b""),
            protocol.get(_TARGET_PORT, b""),
            replying.get(_SOURCES[family], b""),
            bool(int.from_bytes(parts.get(_STATUS, b""), "big") & _SEEN_REPLY),
        )


def delete_flows(tracker: NetlinkSocket, family: int, gone: Iterable[Flow]) -> int:
    """Delete connections; return how many had not ended by then."""
    deleted = 0
    for flow in gone:
        body = _HEADER.pack(family, 0, 0) + attribute(_ORIGINAL | _NESTED, flow.original)
        deleted += not tracker.transact([(_SUBSYSTEM | _DELETE, 0, body)])
    return deleted


def forget_untranslated(
    netns_fd: int, kept: Mapping[tuple[bytes, bytes, bytes], Collection[bytes]]
) -> int:
    """Delete connections in a namespace that are answered by none of those that should.

    Of TCP only those that nobody has answered, so that the next SYN finds somebody.
    `kept` maps (protocol, requested address, port) to the addresses that may answer; other
    connections are left alone. Returns the number of deleted entries. Raises OSError.
    """
    deleted = 0
    with NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER) as tracker:
        for size in {len(requested) for _, requested, _ in kept}:
            family = _FAMILIES[size]
            found = list(flows(tracker, family, _HEADER.pack(family, 0, 0)))
            gone = [
                flow
                for flow in found
                if (answering := kept.get((flow.protocol, flow.requested, flow.port))) is not None
                and flow.replying not in answering
                and not (flow.protocol == _TCP and flow.is_answered)
            ]
            deleted += delete_flows(tracker, family, gone)
    return deleted
