"""Exempt the host's own traffic from connection tracking.

The rules that translate (`host_table`) make the kernel track all connections of the host. This
table exempts, before tracking, those that no rule of overlayd's concerns. Still tracked is what
comes from or goes to a network, a published port, or one of the ports that the host masquerades
with (`core.tracking.tracked_traffic`); and errors of ICMP, as they may be about any of these.

The exemption would break a stateful firewall, so `agent.exposure.tracking_exemption` withdraws it
as soon as another program needs tracking. For the same reason the kernel deletes the table with the
socket that made it (NFT_TABLE_F_OWNER): without an agent everything is tracked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.core.dataplane.state import HOST_LINK_PREFIX
from overlay.core.tracking.tracked_traffic import (
    ORDINARY,
    PRIVILEGED,
    PROTOCOL_NUMBERS,
    NetworkTraffic,
    TrackedPort,
)
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft import userdata
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.table import FAMILY_INET, OUTPUT, PREROUTING, Chain, Set, Table
from overlay.kernel.nft.tables import NftTables
from overlay.model import NodeId

_BEFORE_TRACKING: Final = -300
_PORTS, _ECHOES = "ports", "echoes"  # the second one of ids
_TYPE_INTEGER: Final = 4  # nft(8)'s own numbers
_TYPE_PROTOCOL, _TYPE_SERVICE = 12, 13
_TYPE_ADDRESS: Final = {4: 7, 16: 8}
_SOURCE_PORT, _TARGET_PORT, _ECHO_ID = (0, 2), (2, 2), (4, 2)  # offset and size in the header
_ECHO: Final = {b"\x01": (b"\xf7", b"\x00"), b"\x3a": (b"\xfe", b"\x80")}
"""ICMP and ICMPv6: mask and value of the types of an echo, request and reply (RFC 792, 4443)."""
_UNTRACKED: Final = (ex.notrack(), ex.accept())


def table_name(node_id: NodeId) -> str:
    """Return the table's name, unique by node."""
    return f"overlayd_untracked_{node_id[:3].hex()}"


def table_of(node_id: NodeId, traffic: NetworkTraffic) -> Table:
    """Return the whole table, except the elements of its sets."""
    (protocol, _) = ex.transport(ex.TCP)
    port = ex.transport_header(*_TARGET_PORT, ex.REG32_01)
    to_ports = (protocol, port, ex.in_set(_PORTS), ex.accept())
    ranges = tuple(
        # In place of the comparison with one range, a look into the set of all of this length.
        (*ex.to_range(bytes(size), length)[:-1], ex.in_set(_range_set(size, length)), ex.accept())
        for size, length in _lengths(traffic)
    )
    loopback = (to_ports, *((*ex.transport(each), *_UNTRACKED) for each in (ex.TCP, ex.UDP)))
    arriving = (
        (*ex.iifname_prefix(HOST_LINK_PREFIX), ex.accept()),
        *ranges,
        to_ports,
        *_unless_masqueraded(_TARGET_PORT),
        *_echo_unless_masqueraded(),
    )
    sent = (
        (*ex.oifname_prefix(HOST_LINK_PREFIX), ex.accept()),
        (*ex.oifname_is("lo"), ex.goto("loopback")),
        *_unless_masqueraded(_SOURCE_PORT),
        *_echo_unless_masqueraded(),
    )
    return Table(
        FAMILY_INET,
        table_name(node_id),
        (
            Set(_PORTS, _TYPE_PROTOCOL << 6 | _TYPE_SERVICE, 8),
            Set(_ECHOES, _TYPE_INTEGER, 2, userdata.transport_header(*_ECHO_ID)),
            *(
                Set(_range_set(size, length), _TYPE_ADDRESS[size], size)
                for size, length in _lengths(traffic)
            ),
        ),
        (
            Chain("loopback", (*loopback, *_echo_unless_masqueraded())),
            Chain("arriving", arriving, (PREROUTING, _BEFORE_TRACKING)),
            Chain("sent", sent, (OUTPUT, _BEFORE_TRACKING)),
        ),
        is_owned=True,
    )


def elements(traffic: NetworkTraffic) -> dict[str, frozenset[bytes]]:
    """Return the elements by set."""
    privileged = {
        TrackedPort(number, port)
        for number in PROTOCOL_NUMBERS.values()
        for port in range(PRIVILEGED.first, PRIVILEGED.last + 1)
    }
    echoes = {each for each in traffic.ports if bytes([each.protocol]) in _ECHO}
    found: dict[str, set[bytes]] = {
        _PORTS: {bytes([protocol]).ljust(4, b"\0") + port.to_bytes(2, "big").ljust(4, b"\0")
                 for protocol, port in (traffic.ports | privileged) - echoes},
        _ECHOES: {each.port.to_bytes(2, "big") for each in echoes},
    }  # fmt: skip
    for base, length in traffic.ranges:
        found.setdefault(_range_set(len(base), length), set()).add(bytes(base))
    return {name: frozenset(listed) for name, listed in found.items()}


def _lengths(traffic: NetworkTraffic) -> list[tuple[int, int]]:
    """Return (size of the address, prefix length) of the networks: one rule for each."""
    return sorted({(len(base), length) for base, length in traffic.ranges})


def _range_set(size: int, length: int) -> str:
    return f"networks{4 if size == 4 else 6}_{length}"


def _not_ordinary(where: tuple[int, int]) -> Rule:
    mask, base = (each.to_bytes(2, "big") for each in (ORDINARY.mask, ORDINARY.first))
    return (ex.transport_header(*where), ex.masked(mask), ex.differs(base))


def _unless_masqueraded(where: tuple[int, int]) -> Iterator[Rule]:
    for protocol in (ex.TCP, ex.UDP):
        yield (*ex.transport(protocol), *_not_ordinary(where), *_UNTRACKED)


def _echo_unless_masqueraded() -> Iterator[Rule]:
    for protocol, (mask, value) in _ECHO.items():
        echo = (ex.transport_header(0, 1), ex.masked(mask), ex.equals(value))
        ids = (*_not_ordinary(_ECHO_ID), ex.not_in_set(_ECHOES))
        yield (*ex.transport(protocol), *echo, *ids, *_UNTRACKED)


class UntrackedTraffic:
    """The table of one node; the kernel deletes it with this object's socket."""

    def __init__(self, node_id: NodeId) -> None:
        """Open the socket. Raises NftMissingError if the kernel has no nftables."""
        self._node_id = node_id
        self._tables = NftTables()

    @property
    def port_id(self) -> int:
        """Return this socket's port id, which the kernel's notifications carry."""
        return self._tables.port_id

    def close(self) -> None:
        """Close the socket, and so delete the table."""
        self._tables.close()

    def write(self, traffic: NetworkTraffic) -> None:
        """Write the table in one transaction.

        Raises NftMissingError or OSError if the kernel cannot delete it with the socket (Linux
        before 5.12), or refuses.
        """
        self._tables.replace(table_of(self._node_id, traffic), elements(traffic))
