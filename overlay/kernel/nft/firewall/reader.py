"""Find what of this host's nftables could drop or change the VXLAN packets of members.

Owns: reading the tables of others, as far as such packets meet them. Does not: know what a rule
means (`rule_matches`), or look at iptables' own tables in the kernel (`legacy`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.native.firewall import VxlanTraffic, judging_rule
from overlay.core.netcheck.packet_filter import Action, Chain, Rule
from overlay.errors import OverlayError
from overlay.kernel.netlink.codec import attribute, attributes
from overlay.kernel.nft.expressions import text
from overlay.kernel.nft.firewall.rule_matches import (
    Element,
    RuleReader,
    SetContents,
    number_of,
    text_of,
    value_of,
)
from overlay.kernel.nft.host.host_table import USER_TABLE_NAME
from overlay.kernel.nft.messages import GET_CHAIN, GET_RULE, GET_SET, GET_TABLE, TABLE_FLAGS
from overlay.kernel.nft.table import FAMILY_INET, FAMILY_UNSPEC, OWN_TABLES
from overlay.kernel.nft.table import Table as NamedTable
from overlay.kernel.nft.tables import NftMissingError, NftTables

_IPV4, _NETDEV, _IPV6 = 2, 5, 10
_FAMILY_NAMES: Final = {_IPV4: "ip", FAMILY_INET: "inet", _NETDEV: "netdev", _IPV6: "ip6"}
_HOOKS: Final = {0: "prerouting", 1: "input", 3: "output", 4: "postrouting", 5: "ingress"}
_NETDEV_HOOKS: Final = {0: "ingress", 1: "egress"}
_UNTRACKED_AFTER: Final = -300  # the priority of overlayd's chains that exempt from tracking
_DORMANT: Final = 1
_IS_INTERVAL, _IS_MAP, _HAS_TIMEOUTS, _IS_DYNAMIC, _IS_CONCATENATED = 4, 8, 16, 32, 128
_INTERVAL_END, _CATCH_ALL = 1, 2
_I32: Final = struct.Struct(">i")
_POLICY_DROP: Final = 0


class _Table(NamedTuple):
    family: int
    name: str

    def place(self, chain: str) -> str:
        """Return what is said of a chain."""
        return f"table {_FAMILY_NAMES[self.family]} {self.name}, chain {chain}"


class Firewall(NftTables):
    """The tables of other programs in this namespace, compared with packets of VXLAN."""

    def judging(self, *directions: VxlanTraffic) -> str:
        """Return where packets may be dropped or changed; empty if nowhere.

        Raises OverlayError if there are too many rules to tell, OSError.
        """
        try:
            return next(filter(None, map(self._judging, directions)), "")
        except NftMissingError:
            return ""

    def listed(self, kind: int, table: tuple[int, str]) -> Iterator[dict[int, bytes]]:
        """Yield the attributes of each part of one table."""
        family, name = table
        for _, parts in self._dump(kind, family, attribute(1, text(name))):
            if text_of(parts[1]) == name:
                yield parts

    def _judging(self, traffic: VxlanTraffic) -> str:
        self._left = limits.FIREWALL_RULES_MAX
        chains: dict[str, Chain] = {}
        for table, empty in self._tables(traffic).items():
            chains |= self._compared(table, empty, traffic)
        return judging_rule(chains, traffic.hooks)

    def _tables(self, traffic: VxlanTraffic) -> dict[_Table, dict[str, Chain]]:
        """Return the chains of the tables that the packets meet, without rules."""
        own_family = _IPV6 if len(traffic.own) == 16 else _IPV4
        dormant = {
            _Table(message.buffer[message.start], text_of(parts[1]))
            for message, parts in self._dump(GET_TABLE, FAMILY_UNSPEC)
            if number_of(parts, TABLE_FLAGS) & _DORMANT
        }
        found: dict[_Table, dict[str, Chain]] = {}
        for message, parts in self._dump(GET_CHAIN, FAMILY_UNSPEC):
            table = _Table(message.buffer[message.start], text_of(parts[1]))
            if _is_own(table.name) or table in dormant:
                continue
            if table.family in (own_family, FAMILY_INET, _NETDEV):
                chain = _base_chain(table, parts, traffic) if 4 in parts else Chain()
                found.setdefault(table, {})[text_of(parts[3])] = chain
        return {
            table: chains
            for table, chains in found.items()
            if any(chain.hook for chain in chains.values())
        }

    def _compared(
        self, table: _Table, empty: dict[str, Chain], traffic: VxlanTraffic
    ) -> dict[str, Chain]:
        """Return the chains of a table with their rules."""
        is_untracked = table.family != _NETDEV and all(
            chain.priority > _UNTRACKED_AFTER for chain in empty.values() if chain.hook
        )
        sets = _Sets(self, table)
        reader = RuleReader(traffic, sets.contents, is_untracked=is_untracked)
        place = f"{table.family} {table.name} "
        chains = {f"{place}{name}": chain for name, chain in empty.items()}
        for parts in self.listed(GET_RULE, table):
            self._left -= 1
            if self._left < 0:
                raise OverlayError(
                    f"there are more than {limits.FIREWALL_RULES_MAX} rules in the host's firewall",
                    hint="Look yourself whether one drops the packets: nft list ruleset",
                )
            name = text_of(parts[2])
            chain = chains.setdefault(f"{place}{name}", Chain())
            chain.rules += reader.rules(parts.get(4, b""), table.place(name), place)
        return chains


def _is_own(name: str) -> bool:
    return name.startswith(OWN_TABLES) and name != USER_TABLE_NAME


def _base_chain(table: _Table, parts: dict[int, bytes], traffic: VxlanTraffic) -> Chain:
    """Return a chain with a hook; without it if the packets do not meet it there.

    Translation of addresses does nothing to them, as they are not tracked.
    """
    hook = attributes(parts[4], 0, len(parts[4]))
    names = _NETDEV_HOOKS if table.family == _NETDEV else _HOOKS
    where = names.get(number_of(hook, 1), "")
    devices = {text_of(hook[3])} if 3 in hook else set(_devices(hook.get(4, b"")))
    met = {name for _, name in traffic.interfaces}
    if where not in traffic.hooks or text_of(parts.get(7, b"")) == "nat":
        return Chain()
    if devices and not devices & met:
        return Chain()
    (priority,) = _I32.unpack(hook[2])
    policy = Rule(matches=True, action=Action.ACCEPT)
    if number_of(parts, 5) == _POLICY_DROP and 5 in parts:
        place = table.place(text_of(parts[3]))
        policy = Rule(matches=True, action=Action.DROP, where=place)
    return Chain(where, priority, policy)


def _devices(listed: bytes) -> Iterator[str]:
    position = 0
    while position + 4 <= len(listed):
        (length,) = struct.unpack_from("=H", listed, position)
        if length < 4:
            return
        yield text_of(listed[position + 4 : position + length])
        position += length + 3 & ~3


class _Sets:
    """The contents of a table's sets, read when a rule asks for them."""

    def __init__(self, tables: Firewall, table: _Table) -> None:
        self._tables = tables
        self._table = table
        self._flags: dict[str, int] | None = None
        self._known: dict[str, SetContents | None] = {}

    def contents(self, name: str) -> SetContents | None:
        """Return a set's elements; None for those that packets change, or that are too many."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> SetContents | None:
        if self._flags is None:
            found = self._tables.listed(GET_SET, self._table)
            self._flags = {text_of(parts[2]): number_of(parts, 3) for parts in found}
        flags = self._flags.get(name)
        if flags is None or flags & (_HAS_TIMEOUTS | _IS_DYNAMIC | _IS_CONCATENATED):
            return None
        elements: list[Element] = []
        ends: set[bytes] = set()
        table = NamedTable(self._table.family, self._table.name, (), ())
        for parts in self._tables.element_parts(table, name):
            if len(elements) + len(ends) >= limits.FIREWALL_SET_ELEMENTS_MAX:
                return None
            kind = number_of(parts, 3)
            if kind & _INTERVAL_END:
                ends.add(value_of(parts[1]))
                continue
            key = None if kind & _CATCH_ALL else value_of(parts[1])
            elements.append(Element(key, parts.get(2, b"")))
        return SetContents(tuple(elements), frozenset(ends), bool(flags & _IS_INTERVAL))
