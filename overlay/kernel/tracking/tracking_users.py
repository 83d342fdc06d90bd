"""Find who else on this host needs connection tracking.

A stateful firewall, and whoever translates, depends on it: their connections must not be exempt.
In doubt a rule counts as one that needs it.

Owns: what needs tracking. Does not: know what overlayd exempts (`untracked_traffic`).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from overlay.kernel.netlink.codec import attributes
from overlay.kernel.nft.messages import GET_CHAIN, GET_RULE, RULE_EXPRESSIONS
from overlay.kernel.nft.table import FAMILY_BRIDGE, FAMILY_INET, FAMILY_UNSPEC
from overlay.kernel.nft.tables import NftMissingError, NftTables

_TABLE, _CHAIN, _CHAIN_TYPE = 1, 3, 7
_NAME, _DATA = 1, 2
_FAMILIES: Final = {FAMILY_INET: "inet", 2: "ip", 10: "ip6", FAMILY_BRIDGE: "bridge", 5: "netdev"}
_STATEFUL: Final = frozenset({
    b"ct", b"nat", b"masq", b"redir", b"connlimit", b"flow_offload", b"synproxy", b"objref",
})  # fmt: skip
_BY_IPTABLES: Final = frozenset({b"match", b"target"})
# Extensions of iptables (iptables-extensions(8)) that see each packet by itself.
_STATELESS: Final = frozenset({
    b"tcp", b"udp", b"udplite", b"icmp", b"icmp6", b"sctp", b"dccp", b"esp", b"ah", b"multiport",
    b"comment", b"addrtype", b"limit", b"hashlimit", b"mark", b"mac", b"pkttype", b"set",
    b"iprange", b"length", b"dscp", b"tos", b"ttl", b"hl", b"owner", b"physdev", b"policy",
    b"rpfilter", b"statistic", b"string", b"time", b"tcpmss", b"cgroup", b"recent", b"eui64",
    b"frag", b"rt", b"hbh", b"dst", b"ipv6header", b"u32", b"bpf",
    b"REJECT", b"LOG", b"MARK", b"TCPMSS", b"DSCP", b"TOS", b"TTL", b"HL", b"CHECKSUM", b"NFLOG",
    b"CLASSIFY", b"SET", b"TRACE", b"AUDIT",
})  # fmt: skip
_PROC: Final = Path("/proc/thread-self/net")
_LEGACY: Final = {"iptables-legacy": "ip_tables_names", "ip6tables-legacy": "ip6_tables_names"}
_IPVS, _IPVS_HEADING = "ip_vs", 3  # lines


class TrackingUsers(NftTables):
    """The other programs' rules in this namespace."""

    def first(self, own_tables: Collection[str]) -> str | None:
        """Return one that needs tracking, as people know it; None: nobody does.

        Raises OSError.
        """
        by_rules = (_from_proc(), self._from_chains(own_tables), self._from_rules(own_tables))
        return next(itertools.chain(*by_rules), None)

    def _from_chains(self, own_tables: Collection[str]) -> Iterator[str]:
        for family, table, parts in self._found(GET_CHAIN, own_tables):
            if _text(parts.get(_CHAIN_TYPE, b"")) == "nat":
                yield f"table {family} {table} translates addresses (chain {_text(parts[_CHAIN])})"

    def _from_rules(self, own_tables: Collection[str]) -> Iterator[str]:
        for family, table, parts in self._found(GET_RULE, own_tables):
            if any(map(_is_stateful, _expressions(parts.get(RULE_EXPRESSIONS, b"")))):
                yield f"table {family} {table} has rules about connections"

    def _found(
        self, kind: int, own_tables: Collection[str]
    ) -> Iterator[tuple[str, str, dict[int, bytes]]]:
        try:
            found = self._dump(kind, FAMILY_UNSPEC)
        except NftMissingError:
            return
        for message, parts in found:
            family, table = message.buffer[message.start], _text(parts[_TABLE])
            if table not in own_tables:
                yield _FAMILIES.get(family, str(family)), table, parts


def _from_proc() -> Iterator[str]:
    """Yield users without nftables: their rules cannot be read here, so any table counts."""
    for program, names in _LEGACY.items():
        if found := _lines(names):
            yield f"{program} has the table {found[0]}"
    if len(_lines(_IPVS)) > _IPVS_HEADING:
        yield "IPVS has services"


def _lines(name: str) -> list[str]:
    try:
        return (_PROC / name).read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _expressions(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and data of each expression of a rule."""
    position = 0
    while position + 4 <= len(raw):
        length = int.from_bytes(raw[position : position + 2], sys.byteorder)
        if length < 4:
            return
        parts = attributes(raw, position + 4, position + length)
        yield parts.get(_NAME, b"").rstrip(b"\0"), parts.get(_DATA, b"")
        position += (length + 3) & ~3


def _is_stateful(expression: tuple[bytes, bytes]) -> bool:
    name, data = expression
    if name in _BY_IPTABLES:
        return attributes(data, 0, len(data)).get(_NAME, b"").rstrip(b"\0") not in _STATELESS
    return name in _STATEFUL


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")
