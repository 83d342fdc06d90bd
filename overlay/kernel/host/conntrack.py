"""Delete tracked connections to the old target of a published port or a service.

The rules that translate apply only to the first packet of a connection. For the kernel, UDP packets
from the same source port belong to the existing connection, and would keep going to the previous
target, or nowhere; so would a SYN that is sent again. Established TCP connections are left alone,
as they end by themselves.

Owns: the messages of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple, TypeAlias

from overlay.kernel.netlink import address_rows, codec
from overlay.kernel.netlink.codec import NetlinkMessage, attribute, attributes
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket, messages_of, whole
from overlay.model import Ip

_NETLINK_NETFILTER: Final = 12  # linux/netlink.h
_SUBSYSTEM: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_GET, _DELETE, _GET_STATISTICS = 1, 2, 5
_ENTRIES: Final = 1  # CTA_STATS_GLOBAL_ENTRIES
_HEADER: Final = struct.Struct(">BBH")  # family, version, resource
_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
_ADDRESSES, _PROTOCOL = 1, 2  # CTA_TUPLE_IP, CTA_TUPLE_PROTO
_TARGETS: Final = {2: 2, 10: 4}  # by family: CTA_IP_V4_DST, CTA_IP_V6_DST
_SOURCES: Final = {2: 1, 10: 3}
_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_TCP: Final = b"\x06"
_PROTOCOLS: Final = {"tcp": _TCP, "udp": b"\x11"}
_STATUS, _SEEN_REPLY = 3, 2  # CTA_STATUS, IPS_SEEN_REPLY
_DESTINATION_TRANSLATED: Final = 1 << 5  # IPS_DST_NAT
_TRANSLATED: Final = 1 << 4 | _DESTINATION_TRANSLATED  # and IPS_SRC_NAT
_PROTOCOL_INFO, _OF_TCP, _STATE = 4, 1, 1  # CTA_PROTOINFO, CTA_PROTOINFO_TCP, its state
_ENDED: Final = (7, 8)  # TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE
_NESTED: Final = 0x8000
_FILTER, _FILTER_FLAGS = 25, 1  # Linux 5.8; older kernels dump all
_BY_PROTOCOL, _BY_PORT = 1 << 3, 1 << 5
_FAMILIES: Final = {4: 2, 16: 10}
Place: TypeAlias = tuple[Ip, int, Ip, int]
"""A connection: its source, the port there, its destination, and the port there."""
Kept: TypeAlias = Mapping[tuple[bytes, bytes, bytes], Collection[bytes]]
"""The addresses that may answer, by protocol, requested address and port."""


def forget_misdirected(
    kept: Mapping[tuple[str, int, int], Collection[Ip]],
    gate: tuple[int, Collection[Ip]] | None = None,
) -> int:
    """Delete the entries of connections to ports of the host that lead to a former target.

    Returns the number of deleted entries. `kept` maps (protocol, port, address size) to the targets
    whose connections are kept. One dump serves all ports, because each goes through the kernel's
    whole hash table: 50 ms if that has 262,144 buckets, used or not. `gate` is the namespace that
    translates, and the host's addresses, where it is not the thread's. Raises OSError.
    """
    if gate is None:
        with NetlinkSocket() as host:
            netns_fd, own = None, frozenset(_own_addresses(host))
    else:
        netns_fd, own = gate[0], frozenset(bytes(ip) for ip in gate[1])
    wanted = {
        (_PROTOCOLS[protocol], ip, struct.pack(">H", port)): frozenset(map(bytes, ips))
        for (protocol, port, size), ips in kept.items()
        for ip in own
        if len(ip) == size
    }
    with NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER) as tracker:
        return _forget(tracker, wanted)


def _own_addresses(host: NetlinkSocket) -> frozenset[bytes]:
    messages = host.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP)
    names = {address_rows.address_index(message): "" for message in messages}
    found = (address_rows.decode_address(message, names, temporary=True) for message in messages)
    return frozenset(bytes(row.ip) for row in found if row is not None)


def _query(family: int, kept: Collection[tuple[bytes, bytes, bytes]]) -> bytes:
    """Return a dump request for the connections of a family.

    For a single protocol or port, it returns only connections of it.
    """
    protocols, ports = {each[0] for each in kept}, {each[2] for each in kept}
    if len(protocols) > 1:
        return _HEADER.pack(family, 0, 0)
    protocol, flags = attribute(_NUMBER, min(protocols)), _BY_PROTOCOL
    if len(ports) == 1 and any(ports):
        protocol, flags = protocol + attribute(_TARGET_PORT, min(ports)), _BY_PROTOCOL | _BY_PORT
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
    """Yield the connections of a dump request as they come: there may be hundreds of thousands.

    Raises TornDumpError at the end if the kernel says that some may be missing.
    """
    for buffer in tracker.dump_stream(_SUBSYSTEM | _GET, query):
        for message in messages_of([buffer]):
            yield _flow(message, family)


def _flow(message: NetlinkMessage, family: int) -> Flow:
    parts = attributes(message.buffer, message.start + 4, message.end)
    original, reply = parts[_ORIGINAL], parts[_REPLY]
    there, back = attributes(original, 0, len(original)), attributes(reply, 0, len(reply))
    protocol = attributes(there[_PROTOCOL], 0, len(there[_PROTOCOL]))
    requested = attributes(there[_ADDRESSES], 0, len(there[_ADDRESSES]))
    replying = attributes(back[_ADDRESSES], 0, len(back[_ADDRESSES]))
    return Flow(
        original,
        protocol.get(_NUMBER, b""),
        requested.get(_TARGETS[family], b""),
        protocol.get(_TARGET_PORT, b""),
        replying.get(_SOURCES[family], b""),
        bool(int.from_bytes(parts.get(_STATUS, b""), "big") & _SEEN_REPLY),
    )


def translates_any(ranges: Collection[tuple[Ip, int]]) -> bool:
    """Return whether the thread's namespace translates a connection from or to these ranges.

    Goes through the kernel's whole table. Raises OSError, TornDumpError if some may be missing.
    """
    networks = [ip_network((bytes(base), length)) for base, length in ranges]
    families = {_FAMILIES[len(base)] for base, _ in ranges}
    with NetlinkSocket(protocol=_NETLINK_NETFILTER) as tracker:
        return any(
            ip_address(_source(parts[direction], family)) in network
            for family in families
            for parts in _translated(tracker, _HEADER.pack(family, 0, 0))
            for direction in (_ORIGINAL, _REPLY)
            for network in networks
        )


def open_published_ports(netns_fd: int, own: Collection[Ip]) -> frozenset[int]:
    """Return the ports of open TCP connections to these addresses that a namespace translates.

    Goes through the kernel's whole table, unless the namespace has no connection. Raises OSError,
    TornDumpError if some may be missing.
    """
    with NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER) as tracker:
        if not _entry_count(tracker):
            return frozenset()
        return whole(partial(_published, tracker, frozenset(map(bytes, own))))


def _published(tracker: NetlinkSocket, own: Collection[bytes]) -> frozenset[int]:
    return frozenset(
        int.from_bytes(_target_port(parts[_ORIGINAL]), "big")
        for family in _FAMILIES.values()
        for parts in _translated(
            tracker, _query(family, [(_TCP, b"", b"")]), _DESTINATION_TRANSLATED
        )
        if _address(parts[_ORIGINAL], _TARGETS[family]) in own
    )


def _translated(
    tracker: NetlinkSocket, query: bytes, bits: int = _TRANSLATED
) -> Iterator[Mapping[int, bytes]]:
    """Yield the parts of each connection of a dump request whose status has one of some bits.

    Those of TCP that have ended are left out: the kernel remembers them for two minutes.
    Raises TornDumpError at the end if the kernel says that some may be missing.
    """
    for buffer in tracker.dump_stream(_SUBSYSTEM | _GET, query):
        for message in messages_of([buffer]):
            parts = attributes(message.buffer, message.start + 4, message.end)
            status = int.from_bytes(parts.get(_STATUS, b""), "big")
            if status & bits and _tcp_state(parts) not in _ENDED:
                yield parts


def _tcp_state(parts: Mapping[int, bytes]) -> int:
    """Return the state of a TCP connection; 0 of any other."""
    for kind in (_PROTOCOL_INFO, _OF_TCP):
        found = parts.get(kind, b"")
        parts = attributes(found, 0, len(found))
    return int.from_bytes(parts.get(_STATE, b""), "big")


def _target_port(direction: bytes) -> bytes:
    return _port(direction, _TARGET_PORT)


def _port(direction: bytes, kind: int) -> bytes:
    protocol = attributes(direction, 0, len(direction))[_PROTOCOL]
    return attributes(protocol, 0, len(protocol)).get(kind, b"")


def _source(direction: bytes, family: int) -> bytes:
    return _address(direction, _SOURCES[family])


def _address(direction: bytes, kind: int) -> bytes:
    addresses = attributes(direction, 0, len(direction))[_ADDRESSES]
    return attributes(addresses, 0, len(addresses)).get(kind, b"")


def delete_flows(tracker: NetlinkSocket, family: int, gone: Iterable[Flow]) -> int:
    """Delete connections; return how many had not ended by then."""
    deleted = 0
    for flow in gone:
        body = _HEADER.pack(family, 0, 0) + attribute(_ORIGINAL | _NESTED, flow.original)
        deleted += not tracker.transact([(_SUBSYSTEM | _DELETE, 0, body)])
    return deleted


def forget_begun_at(netns_fd: int, own: Collection[Ip], ports: Collection[int]) -> int:
    """Delete UDP connections in a namespace that begin at these addresses and ports.

    Returns the number of deleted entries. Raises OSError, TornDumpError.
    """
    places = {(bytes(ip), struct.pack(">H", port)) for ip in own for port in ports}
    with NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER) as tracker:
        if not _entry_count(tracker):
            return 0
        return sum(
            delete_flows(tracker, family, whole(partial(_begun_at, tracker, family, places)))
            for family in _FAMILIES.values()
        )


def _begun_at(
    tracker: NetlinkSocket, family: int, places: Collection[tuple[bytes, bytes]]
) -> list[Flow]:
    found = flows(tracker, family, _query(family, [(_PROTOCOLS["udp"], b"", b"")]))
    return [
        each
        for each in found
        if (_source(each.original, family), _port(each.original, _SOURCE_PORT)) in places
    ]


def forget_connections(netns_fd: int, places: Iterable[Place]) -> None:
    """Delete TCP connections in a namespace; untracked ones are not an error.

    Raises OSError.
    """
    with NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER) as tracker:
        for place in places:
            tracker.transact([(_SUBSYSTEM | _DELETE, 0, _place_query(place))])


def _place_query(place: Place) -> bytes:
    source, source_port, target, target_port = place
    family = _FAMILIES[len(target)]
    addresses = attribute(_SOURCES[family], source) + attribute(_TARGETS[family], target)
    protocol = attribute(_NUMBER, _TCP)
    for kind, port in ((_SOURCE_PORT, source_port), (_TARGET_PORT, target_port)):
        protocol += attribute(kind, struct.pack(">H", port))
    original = attribute(_ADDRESSES | _NESTED, addresses)
    original += attribute(_PROTOCOL | _NESTED, protocol)
    return _HEADER.pack(family, 0, 0) + attribute(_ORIGINAL | _NESTED, original)


def forget_unanswered(netns_fd: int, places: Iterable[Place], kept: Kept) -> int:
    """Delete those TCP connections that nobody has answered and that lead to none of `kept`.

    Each is looked up, which needs no dump. `kept` is that of `forget_untranslated`. Returns the
    number of deleted entries. Raises OSError.
    """
    deleted = 0
    with NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER) as tracker:
        for place in places:
            family = _FAMILIES[len(place[2])]
            try:
                found = tracker.get((_SUBSYSTEM | _GET, 0, _place_query(place)))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue
            tracked = [_flow(each, family) for each in found]
            gone = [each for each in tracked if _is_misled(each, kept)]
            deleted += delete_flows(tracker, family, gone)
    return deleted


def forget_untranslated(netns_fd: int, kept: Kept) -> int:
    """Delete connections in a namespace that are answered by none of those that should.

    Of TCP only those that nobody has answered, so that the next SYN finds somebody.
    `kept` maps (protocol, requested address, port) to the addresses that may answer; other
    connections are left alone. Returns the number of deleted entries. Raises OSError.
    """
    with NetlinkSocket(netns_fd, protocol=_NETLINK_NETFILTER) as tracker:
        return _forget(tracker, kept) if _entry_count(tracker) else 0


def _entry_count(tracker: NetlinkSocket) -> int:
    """Return how many connections a namespace has, without the dump that goes through all."""
    (reply,) = tracker.get((_SUBSYSTEM | _GET_STATISTICS, 0, _HEADER.pack(0, 0, 0)))
    parts = attributes(reply.buffer, reply.start + 4, reply.end)
    return int.from_bytes(parts.get(_ENTRIES, b"\1"), "big")


def _forget(tracker: NetlinkSocket, kept: Kept) -> int:
    deleted = 0
    for size in {len(requested) for _, requested, _ in kept}:
        family = _FAMILIES[size]
        gone = whole(partial(_misled, tracker, family, kept))
        deleted += delete_flows(tracker, family, gone)
    return deleted


def _misled(tracker: NetlinkSocket, family: int, kept: Kept) -> list[Flow]:
    found = flows(tracker, family, _query(family, kept))
    return [each for each in found if _is_misled(each, kept)]


def _is_misled(flow: Flow, kept: Kept) -> bool:
    """Return whether nobody who should answers; an answered TCP connection ends by itself."""
    answering = kept.get((flow.protocol, flow.requested, flow.port))
    is_wrong = answering is not None and flow.replying not in answering
    return is_wrong and not (flow.protocol == _TCP and flow.is_answered)
