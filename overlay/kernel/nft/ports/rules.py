"""The rules of port security: sets, chains, and what each drops.

`kernel.nft.port_security` says what they are for, and fills the sets.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay import limits
from overlay.core.dataplane.link_state import HOST_PORT_PREFIX, PORT_PREFIX
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.elements.drop_counters import count_in
from overlay.kernel.nft.expressions import Expression, Rule
from overlay.kernel.nft.table import FAMILY_BRIDGE, POSTROUTING, PREROUTING, Chain, Set, Table

_BEFORE_FORWARDING: Final = -200
_BEFORE_SENDING: Final = 0
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_TAGS: Final = (0x8100, 0x88A8)  # of a second VLAN tag
_TAG, _SERVICE_TAG = b"\x81\x00", b"\x88\xa8"  # IEEE 802.1Q, 802.1ad
_ARP_OF_IPV4: Final = bytes.fromhex("000108000604")  # RFC 826: hardware, protocol, sizes
_ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT, _REDIRECT = 134, 135, 136, 137  # RFC 4861
_LISTENER_REPORTS: Final = (131, 143)  # RFC 2710, RFC 3810: sent from :: during DAD
_DHCP: Final = (67, 68)  # server, client; RFC 2131
_DHCPV6: Final = (547, 546)  # RFC 8415
_ICMPV6: Final = b"\x3a"
_TYPE_IPV4, _TYPE_IPV6, _TYPE_MAC, _TYPE_INDEX = 7, 8, 9, 20  # nft's own numbers
OPEN, MACS, ADDRESSES_IPV4, ADDRESSES_IPV6 = "open", "macs", "addresses4", "addresses6"
DHCP_SERVERS, ROUTERS = "dhcp-servers", "routers"
ISOLATED, TAGGED = "isolated", "tagged"  # ports
ROLES: Final = (DHCP_SERVERS, ROUTERS, ISOLATED, TAGGED)  # as the row has them
_ISOLATED_MACS, _ISOLATED_IPV4, _ISOLATED_IPV6 = "isolated_macs", "isolated4", "isolated6"
ISOLATED_SETS: Final = {6: _ISOLATED_MACS, 4: _ISOLATED_IPV4, 16: _ISOLATED_IPV6}  # by size
NO_PORT: Final = 0  # index under which the isolated addresses are: they are of no port
TYPES, ANY_TYPE = "types", "any_type"
_TYPE_ETHERTYPE, _TYPE_MARK = 10, 19
DROPS: Final = "drops"  # port and reason, each with a counter
REASONS: Final = ("mac", "address", "server", "ethertype", "isolated")
"""Why a frame was dropped: source MAC, address, role of its sender, type, both isolated."""
_MAC, _ADDRESS, _SERVER, _ETHERTYPE, _BOTH_ISOLATED = REASONS
INDEX: Final = struct.Struct("=I")
DROP: Final = struct.Struct("=II")


def _own(load: Expression, name: str) -> Rule:
    """Match if the pair of port and loaded value is in a set."""
    return (ex.incoming_index(), load, ex.in_set(name))


def _foreign(load: Expression, name: str) -> Rule:
    return (ex.incoming_index(), load, ex.not_in_set(name))


def _icmpv6(kind: int) -> Rule:
    return (*ex.transport(_ICMPV6), ex.transport_header(0, 1), ex.equals(bytes([kind])))


def _refused(reason: str) -> Rule:
    """Drop the frame, and count it by port and reason."""
    return (ex.goto(f"refused_{reason}"),)


def _refusal(reason: str) -> Chain:
    """Return the chain that drops; the second rule also drops what the first cannot count."""
    number = INDEX.pack(REASONS.index(reason) + 1)
    count = (ex.incoming_index(), ex.load(_AFTER_INDEX, number), count_in(DROPS))
    return Chain(f"refused_{reason}", (count, (ex.counter(), ex.drop())))


def _no_server(ports: tuple[int, int]) -> tuple[Rule, ...]:
    """Drop DHCP replies, from the server's or to the client's port, but from DHCP servers."""
    server, client = ports
    refused = (*_others_than(DHCP_SERVERS), *_refused(_SERVER))
    return ((*ex.udp_from(server), *refused), (*ex.udp_to(client), *refused))


def _others_than(name: str) -> Rule:
    """Match ports that are not in a set of ports."""
    return (ex.incoming_index(), ex.not_in_set(name))


_AFTER_INDEX: Final = ex.REG32_01  # the register after the port's index
_SOURCE_IPV4, _SOURCE_IPV6 = (12, 4), (8, 16)  # offset and size in the IP header
_DESTINATION_IPV4, _DESTINATION_IPV6 = (16, 4), (24, 16)
_SOURCE_MAC, _DESTINATION_MAC = (6, 6), (0, 6)  # in the Ethernet header
_DROPPED: Final = (ex.counter(), ex.drop())  # of frames that a port would get, not those it sends
_ND_TARGET: Final = ex.transport_header(8, 16, _AFTER_INDEX)


def _frames() -> tuple[Rule, ...]:
    mac = _foreign(ex.link_header(*_SOURCE_MAC, _AFTER_INDEX), MACS)
    return (
        (*mac, *_refused(_MAC)),
        (*ex.ethertype(_ARP), ex.goto("arp")),
        (*ex.ethertype(_IPV4), ex.goto("ipv4")),
        (*ex.ethertype(_IPV6), ex.goto("ipv6")),
        *((*ex.ethertype(tag), *_refused(_ETHERTYPE)) for tag in _TAGS),
        (*_own(ex.ethertype_of(_AFTER_INDEX), TYPES), ex.accept()),
        (ex.incoming_index(), ex.in_set(ANY_TYPE), ex.accept()),
        _refused(_ETHERTYPE),
    )


def _arp() -> tuple[Rule, ...]:
    mac = _foreign(ex.network_header(8, 6, _AFTER_INDEX), MACS)
    sender = (14, 4)
    return (
        (ex.network_header(0, 6), ex.differs(_ARP_OF_IPV4), *_refused(_ETHERTYPE)),
        (*mac, *_refused(_MAC)),
        (ex.network_header(*sender), ex.equals(bytes(4)), ex.accept()),  # a probe: RFC 5227
        (*_own(ex.network_header(*sender, _AFTER_INDEX), ADDRESSES_IPV4), ex.accept()),
        _refused(_ADDRESS),
    )


def _ipv4() -> tuple[Rule, ...]:
    server, client = _DHCP
    no_address = (ex.network_header(*_SOURCE_IPV4), ex.equals(bytes(4)))
    return (
        *_no_server(_DHCP),
        (*_own(ex.network_header(*_SOURCE_IPV4, _AFTER_INDEX), ADDRESSES_IPV4), ex.accept()),
        (*no_address, *ex.udp_from(client), *ex.udp_to(server), ex.accept()),
        _refused(_ADDRESS),
    )


def _ipv6() -> tuple[Rule, ...]:
    source = ex.network_header(*_SOURCE_IPV6, _AFTER_INDEX)
    no_address = (ex.network_header(*_SOURCE_IPV6), ex.equals(bytes(16)))
    tried = _own(_ND_TARGET, ADDRESSES_IPV6)
    return (
        *_no_server(_DHCPV6),
        (*_icmpv6(_ROUTER_ADVERTISEMENT), *_others_than(ROUTERS), *_refused(_SERVER)),
        (*_icmpv6(_REDIRECT), *_refused(_SERVER)),
        (*_icmpv6(_ADVERTISEMENT), *_foreign(_ND_TARGET, ADDRESSES_IPV6), *_refused(_ADDRESS)),
        (*_own(source, ADDRESSES_IPV6), ex.accept()),
        (*no_address, *_icmpv6(_SOLICITATION), *tried, ex.accept()),
        *((*no_address, *_icmpv6(kind), ex.accept()) for kind in _LISTENER_REPORTS),
        _refused(_ADDRESS),
    )


def _isolated(mac: tuple[int, int], ipv4: tuple[int, int], ipv6: tuple[int, int]) -> list[Rule]:
    """Drop frames with an isolated container's MAC or address in a field of their headers."""
    return [
        (ex.link_header(*mac), ex.in_set(_ISOLATED_MACS), *_refused(_BOTH_ISOLATED)),
        (
            *ex.ethertype(_IPV4),
            ex.network_header(*ipv4),
            ex.in_set(_ISOLATED_IPV4),
            *_refused(_BOTH_ISOLATED),
        ),
        (
            *ex.ethertype(_IPV6),
            ex.network_header(*ipv6),
            ex.in_set(_ISOLATED_IPV6),
            *_refused(_BOTH_ISOLATED),
        ),
    ]


def _tags(ports: Rule, index: Expression, refused: Rule) -> tuple[Rule, ...]:
    """Drop tagged frames of ports without VLANs, and untagged ones of the others."""
    # An accelerated tag is in the Ethernet header that nftables sees, but not in the protocol.
    kind = ex.link_header(12, 2)
    return (
        (*ports, kind, ex.equals(_SERVICE_TAG), *refused),
        (*ports, kind, ex.equals(_TAG), index, ex.not_in_set(TAGGED), *refused),
        (*ports, kind, ex.differs(_TAG), index, ex.in_set(TAGGED), *refused),
    )


_ARRIVING: Final = (
    *_tags(ex.iifname_prefix(PORT_PREFIX), ex.incoming_index(), _refused(_ETHERTYPE)),
    (
        *ex.iifname_prefix(PORT_PREFIX),
        ex.incoming_index(),
        ex.in_set(ISOLATED),
        ex.goto("from_isolated"),
    ),
    (
        *ex.iifname_prefix(PORT_PREFIX),
        ex.incoming_index(),
        ex.not_in_set(OPEN),
        ex.goto("check"),
    ),
)
_LEAVING: Final = (
    *_tags(ex.oifname_prefix(PORT_PREFIX), ex.outgoing_index(), _DROPPED),
    *_tags(ex.oifname_prefix(HOST_PORT_PREFIX), ex.outgoing_index(), _DROPPED),
    (
        *ex.oifname_prefix(PORT_PREFIX),
        ex.outgoing_index(),
        ex.in_set(ISOLATED),
        ex.goto("to_isolated"),
    ),
)
TABLE: Final = Table(
    FAMILY_BRIDGE,
    "overlayd_ports",
    (
        Set(OPEN, _TYPE_INDEX, 4),
        Set(MACS, _TYPE_INDEX << 6 | _TYPE_MAC, 12),
        Set(ADDRESSES_IPV4, _TYPE_INDEX << 6 | _TYPE_IPV4, 8),
        Set(ADDRESSES_IPV6, _TYPE_INDEX << 6 | _TYPE_IPV6, 20),
        Set(DHCP_SERVERS, _TYPE_INDEX, 4),
        Set(ROUTERS, _TYPE_INDEX, 4),
        Set(ISOLATED, _TYPE_INDEX, 4),
        Set(TAGGED, _TYPE_INDEX, 4),
        Set(_ISOLATED_MACS, _TYPE_MAC, 6),
        Set(_ISOLATED_IPV4, _TYPE_IPV4, 4),
        Set(_ISOLATED_IPV6, _TYPE_IPV6, 16),
        Set(TYPES, _TYPE_INDEX << 6 | _TYPE_ETHERTYPE, 8),
        Set(ANY_TYPE, _TYPE_INDEX, 4),
        Set(DROPS, _TYPE_INDEX << 6 | _TYPE_MARK, 8, size=limits.PORT_DROPS_MAX),
    ),
    (
        *map(_refusal, REASONS),
        Chain("check", _frames()),
        Chain("arp", _arp()),
        Chain("ipv4", _ipv4()),
        Chain("ipv6", _ipv6()),
        Chain(
            "from_isolated",
            (
                *_isolated(_DESTINATION_MAC, _DESTINATION_IPV4, _DESTINATION_IPV6),
                (ex.goto("check"),),
            ),
        ),
        Chain("to_isolated", tuple(_isolated(_SOURCE_MAC, _SOURCE_IPV4, _SOURCE_IPV6))),
        Chain("arriving", _ARRIVING, (PREROUTING, _BEFORE_FORWARDING)),
        Chain("leaving", _LEAVING, (POSTROUTING, _BEFORE_SENDING)),
    ),
)
