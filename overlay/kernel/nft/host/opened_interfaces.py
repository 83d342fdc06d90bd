"""Which interfaces forward because of overlayd only, as the kernel's tables of the host have it.

The tables live as long as the sysctls: to the next boot, also where the run directory is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Final

from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.kernel.netlink.codec import attributes
from overlay.kernel.netlink.link_lookup import links_best_effort
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.elements.expression_lists import decoded, matches
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.host.host_table import INDEX, LINKS, PASSING, TABLE_PREFIX, transit_rule
from overlay.kernel.nft.table import FAMILY_INET
from overlay.kernel.nft.tables import NftMissingError, NftTables

_COMPARED, _VALUE = 3, 1  # of an expression cmp: NFTA_CMP_DATA, and in that NFTA_DATA_VALUE
_RECEIVED_BY: Final = 3  # the place of the comparison with the receiving interface in a rule


def read_opened() -> dict[str, frozenset[ForwardingInterface]]:
    """Return the opened interfaces by the name of the table that guards them.

    Those that are gone are not among them. Empty on a kernel without nftables. Raises OSError.
    """
    try:
        tables = NftTables()
    except NftMissingError:
        return {}
    found: dict[str, frozenset[ForwardingInterface]] = {}
    with closing(tables), NetlinkSocket() as socket:
        indexes = {each.name: each.index for each in links_best_effort(socket)}
        for family, name in tables.names():
            if family == FAMILY_INET and name.startswith(TABLE_PREFIX):
                found[name] = _opened(tables.rules_of(family, name, PASSING), indexes)
    return found


def _opened(rules: Iterable[bytes], indexes: Mapping[str, int]) -> frozenset[ForwardingInterface]:
    read = (_opened_by(raw, indexes) for raw in rules)
    return frozenset(each for each in read if each and each.interface_index in indexes.values())


def _opened_by(raw: bytes, indexes: Mapping[str, int]) -> ForwardingInterface | None:
    """Return the interface that a rule guards; None if it is no such rule."""
    key = _received_by(raw)
    name = key.rstrip(b"\0").decode("utf-8", "surrogateescape")
    for family in (4, 6):
        if len(key) == INDEX.size:
            found = ForwardingInterface(INDEX.unpack(key)[0], family)
            if matches(transit_rule(found), raw):
                return found
        elif name in indexes and matches(_former_rule(name, family), raw):
            return ForwardingInterface(indexes[name], family)
    return None


def _received_by(raw: bytes) -> bytes:
    expressions = list(decoded(raw))
    if len(expressions) <= _RECEIVED_BY or expressions[_RECEIVED_BY][0] != "cmp":
        return b""
    compared = expressions[_RECEIVED_BY][1].get(_COMPARED, b"")
    return attributes(compared, 0, len(compared)).get(_VALUE, b"")


def _former_rule(name: str, family: int) -> Rule:
    """Return the rule that an earlier version wrote for an interface."""
    elsewhere = (*ex.oifname_in_set(LINKS, inside=False), *ex.oifname_is_not(name))
    kind = ex.is_ipv4() if family == 4 else ex.is_ipv6()
    return (*kind, *ex.iifname_is(name), *elsewhere, ex.counter(), ex.drop())
