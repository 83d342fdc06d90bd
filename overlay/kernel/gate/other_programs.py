"""Find rules, queues and programs of others that speak against a gate in the thread's namespace.

Where they track or translate, the host's own traffic is tracked anyway. Where they have rules that
packets of containers or published ports meet, a gate would take packets past these, or show them
other addresses, marks and priorities. Rules for what the host itself receives see the same.

Owns: where it looks: nftables, the tables that iptables-legacy keeps in the kernel, IPVS, and what
tc(8) and others have at interfaces. Does not: tell what a rule would do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from socket import if_indextoname
from typing import Final, NamedTuple

from overlay import limits
from overlay.kernel.bpf import tc_filters
from overlay.kernel.bpf.hooks import tcx
from overlay.kernel.bpf.hooks.owner import EGRESS, INGRESS, USES
from overlay.kernel.netlink import codec, link_decoder
from overlay.kernel.netlink.codec import attribute, attributes
from overlay.kernel.netlink.socket import LargeDumpError, NetlinkSocket
from overlay.kernel.nft import underlay_filter
from overlay.kernel.nft.elements.expression_lists import decoded
from overlay.kernel.nft.expressions import text
from overlay.kernel.nft.firewall.rule_matches import number_of, text_of
from overlay.kernel.nft.host import host_table
from overlay.kernel.nft.messages import GET_CHAIN, GET_RULE, GET_TABLE, TABLE_FLAGS
from overlay.kernel.nft.table import FAMILY_INET, FAMILY_UNSPEC, services_table_name
from overlay.kernel.nft.tables import NftMissingError, NftTables
from overlay.model import NodeId

_NET: Final = Path("/proc/thread-self/net")
_LEGACY: Final = {"ip_tables_names": "iptables-legacy", "ip6_tables_names": "ip6tables-legacy"}
_IFLA_XDP, _XDP_ATTACHED = 43, 2  # linux/if_link.h
_LINK_HEADER_SIZE: Final = 16  # struct ifinfomsg
_IPVS_HEADER: Final = 3  # lines of /proc/net/ip_vs without a service
_FAMILIES: Final = {2: "ip", FAMILY_INET: "inet", 5: "netdev", 10: "ip6"}
_NETDEV: Final = 5
_INPUT: Final = 1  # NF_INET_LOCAL_IN
_CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_USE, _CHAIN_TYPE = 4, 5, 6, 7  # NFTA_CHAIN_*
_POLICY_DROP, _DORMANT = 0, 1
# Expressions that neither track nor translate; `match` and `target` are iptables', by their names.
_PLAIN: Final = frozenset({
    "bitwise", "byteorder", "cmp", "counter", "exthdr", "fib", "hash", "immediate", "last", "limit",
    "log", "lookup", "meta", "numgen", "osf", "payload", "queue", "quota", "range", "reject", "rt",
    "socket",
})  # fmt: skip
_PLAIN_EXTENSIONS: Final = frozenset({
    "LOG", "REJECT", "addrtype", "comment", "icmp", "icmp6", "limit", "multiport", "set", "tcp",
    "udp",
})  # fmt: skip
_META_KEY, _META_SOURCE, _MARK = 2, 3, 3  # NFTA_META_KEY, NFTA_META_SREG, NFT_META_MARK
_EXTENSION_NAME: Final = 1  # NFTA_MATCH_NAME, NFTA_TARGET_NAME
_OBJECT_TYPE: Final = 1  # NFTA_OBJREF_IMM_TYPE
_PLAIN_OBJECTS: Final = (1, 2, 4)  # counter, quota, limit: NFT_OBJECT_*
# Queueing disciplines that look at no mark or priority that a rule may have set.
_PLAIN_QUEUES: Final = frozenset({
    "bfifo", "codel", "fq", "fq_codel", "fq_pie", "mq", "netem", "noqueue", "pfifo", "pfifo_fast",
    "pie", "sfq", "tbf",
})  # fmt: skip
_OWN_PROGRAMS: Final = tuple(each.program_prefix for each in USES)
_TRACKS: Final = "connections are tracked anyway, by {}"
_MAY_TRACK: Final = "connections may be tracked anyway, by {}"
_SEES: Final = "{} would not see the packets that it sees without a gate"


def other_use(node_id: NodeId, outside: Collection[int]) -> str:
    """Return what speaks against a node's gate, if these interfaces lead outside; empty if nothing.

    Raises OSError.
    """
    own = {
        underlay_filter.table_name(node_id),
        host_table.table_name(node_id),
        services_table_name(node_id),
    }
    try:
        with_rules = _Tables(dump_size_max=limits.GATE_RULES_SIZE_MAX)
    except NftMissingError:
        found = ""
    else:
        try:
            found = with_rules.use(own)
        except LargeDumpError:
            found = _TRACKS.format("so many rules that not all were looked at")
        finally:
            with_rules.close()
    return found or _old_use(_NET) or _interface_use(outside)


def admits_by_mark() -> bool:
    """Return whether the operator's rules mark packets: routes from outside need no gate then.

    A gate that stands does not keep these either. Raises OSError.
    """
    try:
        tables = _Tables(dump_size_max=limits.GATE_RULES_SIZE_MAX)
    except NftMissingError:
        return False
    try:
        return tables.sets_mark(FAMILY_INET, host_table.USER_TABLE_NAME)
    except (LargeDumpError, FileNotFoundError):
        return False
    finally:
        tables.close()


def _old_use(net: Path) -> str:
    for name, program in _LEGACY.items():
        for table in sorted(_lines(net / name)):
            return _TRACKS.format(f"{program}'s table {table}, as it may be")
    return _TRACKS.format("IPVS") if len(_lines(net / "ip_vs")) > _IPVS_HEADER else ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:  # the kernel, or this namespace, has none
        return []


class _Chain(NamedTuple):
    family: int
    table: str
    name: str

    def __str__(self) -> str:
        return f"table {_FAMILIES[self.family]} {self.table}, chain {self.name}"


class _Tables(NftTables):
    """The tables of other programs, and those of the operator."""

    def use(self, own: Collection[str]) -> str:
        """Return which chain of other tables speaks against a gate; empty if none does."""
        try:
            chains = {chain: parts for chain, parts in self._chains() if chain.table not in own}
        except NftMissingError:
            return ""
        for chain, parts in chains.items():
            if _CHAIN_HOOK in parts and text_of(parts.get(_CHAIN_TYPE, b"")) == "nat":
                return _TRACKS.format(chain)
        for chain, parts in chains.items():
            if _CHAIN_HOOK in parts and _decides(parts) and not _is_input(chain, parts):
                return _SEES.format(chain)
        for table in {each[:2] for each in chains}:
            for chain, raw in self._rules(*table):
                if not all(_is_plain(*expression) for expression in decoded(raw)):
                    return _MAY_TRACK.format(chain)
        return ""

    def sets_mark(self, family: int, table: str) -> bool:
        """Return whether a rule of a table sets packets' marks."""
        return any(
            name == "meta" and _META_SOURCE in data and number_of(data, _META_KEY) == _MARK
            for _, raw in self._rules(family, table)
            for name, data in decoded(raw)
        )

    def _chains(self) -> Iterator[tuple[_Chain, dict[int, bytes]]]:
        dormant = {
            (message.buffer[message.start], text_of(parts[1]))
            for message, parts in self._dump(GET_TABLE, FAMILY_UNSPEC)
            if number_of(parts, TABLE_FLAGS) & _DORMANT
        }
        for message, parts in self._dump(GET_CHAIN, FAMILY_UNSPEC):
            chain = _Chain(message.buffer[message.start], text_of(parts[1]), text_of(parts[3]))
            if chain.family in _FAMILIES and chain[:2] not in dormant:
                yield chain, parts

    def _rules(self, family: int, table: str) -> Iterator[tuple[_Chain, bytes]]:
        for _, parts in self._dump(GET_RULE, family, attribute(1, text(table))):
            if text_of(parts[1]) == table:
                yield _Chain(family, table, text_of(parts[2])), parts.get(4, b"")


def _has_xdp(link: codec.NetlinkMessage) -> bool:
    parts = attributes(link.buffer, link.start + _LINK_HEADER_SIZE, link.end)
    xdp = parts.get(_IFLA_XDP, b"")
    return any(attributes(xdp, 0, len(xdp)).get(_XDP_ATTACHED, b""))


def _decides(parts: dict[int, bytes]) -> bool:
    """Return whether a chain has rules, or drops without any."""
    drops = _CHAIN_POLICY in parts and number_of(parts, _CHAIN_POLICY) == _POLICY_DROP
    return drops or number_of(parts, _CHAIN_USE) > 0


def _is_input(chain: _Chain, parts: dict[int, bytes]) -> bool:
    hook = attributes(parts[_CHAIN_HOOK], 0, len(parts[_CHAIN_HOOK]))
    return chain.family != _NETDEV and number_of(hook, 1) == _INPUT


def _is_plain(name: str, data: dict[int, bytes]) -> bool:
    if name in {"match", "target"}:
        return text_of(data.get(_EXTENSION_NAME, b"")) in _PLAIN_EXTENSIONS
    if name == "objref":
        return number_of(data, _OBJECT_TYPE) in _PLAIN_OBJECTS
    return name in _PLAIN


def _interface_use(outside: Collection[int]) -> str:
    with NetlinkSocket() as host:
        queues = host.dump(codec.RTM_GETQDISC, tc_filters.QDISC_DUMP)
        links = host.dump(codec.RTM_GETLINK, link_decoder.DUMP_BODY)
    for link in links:
        index = link_decoder.index_of(link)
        if index in outside and _has_xdp(link):
            return _SEES.format(f"an XDP program on {if_indextoname(index)}")
    for message in queues:
        index = tc_filters.index_of(message)
        found = attributes(message.buffer, message.start + tc_filters.HEADER_SIZE, message.end)
        kind = text_of(found.get(1, b""))
        if index in outside and kind not in _PLAIN_QUEUES:
            return _SEES.format(f"tc's {kind} on {if_indextoname(index)}")
    for index in sorted(outside):
        for where in (INGRESS, EGRESS):
            for _, name in tcx.named(index, where):
                if not name.startswith(_OWN_PROGRAMS):
                    return _SEES.format(f"eBPF program {name} on {if_indextoname(index)}")
    return ""
