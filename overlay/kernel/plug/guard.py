"""The filter of a plugged interface: a table of the family bridge in the network's sandbox.

Each port has a table of its own, so that what is heard and seen is known by its wire.

The port passes nothing unless it is in the set `active`, where it can have a time: if no agent
renews that, the kernel closes the port by itself. From outside come ARP, IPv4 and IPv6 without VLAN
tags, and neither a frame with a MAC or address of a container or gateway, nor router
advertisements, redirects or answers of a DHCP server. To outside go ARP, IPv4 and IPv6. Bridge
group addresses (01:80:c2:00:00:0x: STP, LLDP) never pass.

Packets fill three sets: MACs outside, bounded, as the bridge learns them; and their IPv4 and IPv6
addresses. Probes of other plugs are heard also while a port is closed.

Owns: that table. Does not: decide whether a port is open.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from overlay import limits
from overlay.core.plug.probe import ETHERTYPE
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.expressions import Expression, Rule
from overlay.kernel.nft.messages import put_elements
from overlay.kernel.nft.table import (
    FAMILY_BRIDGE,
    POSTROUTING,
    PREROUTING,
    Chain,
    Set,
    Table,
)
from overlay.kernel.nft.watched_table import WatchedTable
from overlay.model import Ip, Mac

_BEFORE_FORWARDING: Final = -199  # behind port security
_ARP, _IPV4, _IPV6 = (struct.pack(">H", kind) for kind in (0x0806, 0x0800, 0x86DD))
_ARP_OF_IPV4: Final = bytes.fromhex("000108000604")  # RFC 826: hardware, protocol, sizes
_BRIDGE_GROUP, _GROUP_MASK = bytes.fromhex("0180c2000000"), bytes.fromhex("fffffffffff0")
_ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT, _REDIRECT = 134, 135, 136, 137  # RFC 4861
_DHCP: Final = ((67, 68), (547, 546))  # server and client: RFC 2131, RFC 8415
_ICMPV6: Final = b"\x3a"
_TYPE_IPV4, _TYPE_IPV6, _TYPE_MAC, _TYPE_NAME = 7, 8, 9, 41  # nft's own numbers
_ACTIVE, _HEARD, _MACHINES, _SEEN_IPV4, _SEEN_IPV6 = "active", "heard", "macs", "seen4", "seen6"
_OWN_MACS, _OWN_IPV4, _OWN_IPV6 = "ours", "ours4", "ours6"
_UPDATE: Final = 1  # NFT_DYNSET_OP_UPDATE
_AFTER_MAC: Final = 10  # the register behind the two that hold a MAC
_SOURCE_MAC: Final = ex.link_header(6, 6)
_REFUSED: Final = (ex.counter(), ex.drop())


def _learn(name: str) -> Expression:
    """Put the registers' value into a set, or renew its time; a full set ends the rule."""
    data = ((1, ex.text(name)), (3, ex.number(_UPDATE)), (4, ex.number(ex.REG_1)))
    return Expression("dynset", data)


def _is_kind(ethertype: bytes) -> Rule:
    return (ex.link_header(12, 2), ex.equals(ethertype))


def _icmpv6(kind: int) -> Rule:
    return (*ex.transport(_ICMPV6), ex.transport_header(0, 1), ex.equals(bytes([kind])))


def _to_bridge_group() -> Rule:
    return (ex.link_header(0, 6), ex.masked(_GROUP_MASK), ex.equals(_BRIDGE_GROUP))


def _seen(load: Expression, name: str) -> Rule:
    return (_SOURCE_MAC, load, _learn(name))


def _renewed(load: Expression, name: str) -> Rule:
    """Renew the time of what is known: a router outside sends from every address there is."""
    return (_SOURCE_MAC, load, ex.in_set(name), _SOURCE_MAC, load, _learn(name))


def _no_server(ports: tuple[int, int]) -> tuple[Rule, ...]:
    server, client = ports
    return ((*ex.udp_from(server), *_REFUSED), (*ex.udp_to(client), *_REFUSED))


def _arriving() -> tuple[Rule, ...]:
    return (
        (*_is_kind(struct.pack(">H", ETHERTYPE)), _SOURCE_MAC, _learn(_HEARD), ex.drop()),
        (*_is_kind(struct.pack(">H", ETHERTYPE)), ex.drop()),
        (*ex.iifname_in_set(_ACTIVE, inside=False), ex.drop()),
        (*_to_bridge_group(), *_REFUSED),
        (_SOURCE_MAC, ex.in_set(_OWN_MACS), *_REFUSED),
        (_SOURCE_MAC, _learn(_MACHINES), ex.goto("known")),
        _REFUSED,
    )


def _known() -> tuple[Rule, ...]:
    return (
        (*_is_kind(_ARP), ex.goto("arp")),
        (*_is_kind(_IPV4), ex.goto("ipv4")),
        (*_is_kind(_IPV6), ex.goto("ipv6")),
        _REFUSED,
    )


def _arp() -> tuple[Rule, ...]:
    sender = (14, 4)
    return (
        (ex.network_header(0, 6), ex.differs(_ARP_OF_IPV4), *_REFUSED),
        (ex.network_header(8, 6), ex.in_set(_OWN_MACS), *_REFUSED),
        (ex.network_header(*sender), ex.in_set(_OWN_IPV4), *_REFUSED),
        (ex.network_header(*sender), ex.equals(bytes(4)), ex.accept()),  # a probe: RFC 5227
        _seen(ex.network_header(*sender, _AFTER_MAC), _SEEN_IPV4),
    )


def _ipv4() -> tuple[Rule, ...]:
    return (
        *_no_server(_DHCP[0]),
        (ex.network_header(12, 4), ex.in_set(_OWN_IPV4), *_REFUSED),
        _renewed(ex.network_header(12, 4, _AFTER_MAC), _SEEN_IPV4),
    )


def _ipv6() -> tuple[Rule, ...]:
    source, target = ex.network_header(8, 16, _AFTER_MAC), ex.transport_header(8, 16, _AFTER_MAC)
    return (
        *_no_server(_DHCP[1]),
        (*_icmpv6(_ROUTER_ADVERTISEMENT), *_REFUSED),
        (*_icmpv6(_REDIRECT), *_REFUSED),
        (ex.network_header(8, 16), ex.in_set(_OWN_IPV6), *_REFUSED),
        (*_icmpv6(_ADVERTISEMENT), ex.transport_header(8, 16), ex.in_set(_OWN_IPV6), *_REFUSED),
        (*_icmpv6(_ADVERTISEMENT), *_seen(target, _SEEN_IPV6)),
        (ex.network_header(8, 16), ex.equals(bytes(16)), ex.accept()),
        (*_icmpv6(_SOLICITATION), *_seen(source, _SEEN_IPV6)),
        _renewed(source, _SEEN_IPV6),
    )


def _leaving() -> tuple[Rule, ...]:
    return (
        (*ex.oifname_in_set(_ACTIVE, inside=False), ex.drop()),
        (*_to_bridge_group(), *_REFUSED),
        *((*_is_kind(kind), ex.accept()) for kind in (_ARP, _IPV4, _IPV6)),
        _REFUSED,
    )


_HEARD_MS, _SEEN_MS = int(limits.PLUG_HEARD_S * 1000), int(limits.PLUG_SEEN_S * 1000)
_SEEN_TYPES: Final = ((_SEEN_IPV4, _TYPE_IPV4, 12), (_SEEN_IPV6, _TYPE_IPV6, 24))


def plug_table(port: str) -> Table:
    """Return the table of a port."""
    return Table(
        FAMILY_BRIDGE,
        f"overlayd_{port}",
        (
            Set(_ACTIVE, _TYPE_NAME, 16, expires=True),
            Set(_HEARD, _TYPE_MAC, 6, size=limits.PLUG_PROBERS_MAX, timeout_ms=_HEARD_MS),
            Set(_MACHINES, _TYPE_MAC, 6, size=limits.PLUG_MACS_MAX, timeout_ms=_SEEN_MS),
            *(
                Set(
                    name,
                    _TYPE_MAC << 6 | kind,
                    key_size,
                    size=limits.PLUG_ADDRESSES_MAX,
                    timeout_ms=_SEEN_MS,
                )
                for name, kind, key_size in _SEEN_TYPES
            ),
            Set(_OWN_MACS, _TYPE_MAC, 6),
            Set(_OWN_IPV4, _TYPE_IPV4, 4),
            Set(_OWN_IPV6, _TYPE_IPV6, 16),
        ),
        (
            Chain("known", _known()),
            Chain("arp", _arp()),
            Chain("ipv4", _ipv4()),
            Chain("ipv6", _ipv6()),
            Chain("in", _arriving()),
            Chain("out", _leaving()),
            Chain(
                "arriving",
                ((*ex.iifname_is(port), ex.goto("in")),),
                (PREROUTING, _BEFORE_FORWARDING),
            ),
            Chain(
                "leaving",
                ((*ex.oifname_is(port), ex.goto("out")),),
                (POSTROUTING, _BEFORE_FORWARDING),
            ),
        ),
    )


class PlugGuard(WatchedTable):
    """The table of one port."""

    def __init__(self, netns_fd: int, port: str) -> None:
        """Create the table, with the port closed, unless it is there.

        Raises NftMissingError if the kernel does not support it, OSError.
        """
        self._table = plug_table(port)
        self._key = ex.interface_key(port)
        super().__init__(netns_fd, self._table)
        self._own: dict[str, frozenset[bytes]] = {}
        try:
            if self._is_intact:
                self._own = {name: self._elements(name) for name in _OWN_SETS}
            else:
                self._tables.replace(self._table, {})
                self._is_intact = True
        except BaseException:
            self.close()
            raise

    def _elements(self, name: str) -> frozenset[bytes]:
        return self._tables.elements_of(self._table, name)

    def repair(self) -> bool:
        """Write the table again if another program changed it; return whether one did.

        The port is closed then. Raises OSError.
        """
        if not self.altered() or self._tables.holds(self._table):
            return False
        self._tables.replace(self._table, self._own)
        return True

    def open_port(self, lease_ms: int) -> None:
        """Let frames pass; for so long, if `lease_ms` is not 0. Raises OSError."""
        before = self._elements(_ACTIVE)
        opened = put_elements(self._table, {_ACTIVE: frozenset({self._key})}, lease_ms)
        self._tables.change(self._table, {}, {_ACTIVE: before}, opened)

    def close_port(self) -> None:
        """Let no frame pass. Raises OSError."""
        before = self._elements(_ACTIVE)
        if before:
            self._tables.change(self._table, {}, {_ACTIVE: before})

    def protect(self, macs: Iterable[Mac], ips: Collection[Ip]) -> None:
        """Accept none of these MACs and addresses from outside. Raises OSError."""
        wanted = {
            _OWN_MACS: frozenset[bytes](macs),
            _OWN_IPV4: frozenset[bytes](ip for ip in ips if len(ip) == 4),
            _OWN_IPV6: frozenset[bytes](ip for ip in ips if len(ip) == 16),
        }
        put = {name: keys - self._own.get(name, frozenset()) for name, keys in wanted.items()}
        gone = {name: self._own.get(name, frozenset()) - keys for name, keys in wanted.items()}
        self._tables.change(self._table, _filled(put), _filled(gone))
        self._own = wanted

    def heard(self) -> frozenset[Mac]:
        """Return the MACs that probes came from lately. Raises OSError."""
        return frozenset(Mac(key) for key in self._elements(_HEARD))

    def seen(self) -> frozenset[tuple[Mac, Ip]]:
        """Return the MACs and addresses outside, as they were seen lately. Raises OSError."""
        keys = self._elements(_SEEN_IPV4) | self._elements(_SEEN_IPV6)
        return frozenset((Mac(key[:6]), Ip(key[8:])) for key in keys)

    def refused(self) -> int:
        """Return how many frames were refused, of those that came to the open port."""
        return sum(self._tables.counted(self._table))

    def is_open(self) -> bool:
        """Return whether frames pass. Raises OSError."""
        return self._key in self._elements(_ACTIVE)

    def remove(self) -> None:
        """Delete the table, and close. Raises OSError."""
        try:
            self._tables.delete(self._table.family, self._table.name)
        finally:
            self.close()


_OWN_SETS: Final = (_OWN_MACS, _OWN_IPV4, _OWN_IPV6)


def _filled(elements: Mapping[str, frozenset[bytes]]) -> dict[str, frozenset[bytes]]:
    return {name: keys for name, keys in elements.items() if keys}
