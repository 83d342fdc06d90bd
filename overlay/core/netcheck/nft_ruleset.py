"""Compare the rules of `nft -j list ruleset` with a packet (libnftables-json(5)).

Owns: the meaning of the expressions that firewalls use for addresses, ports, interfaces, states and
sizes. Everything else is not known, which is said so. overlayd's own tables are left out.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from overlay.core.netcheck.packet_filter import Action, Chain, Packet, Rule

_OWN_TABLES: Final = "overlayd"
# The tables of iptables-nft: `iptables-save` shows them with all matches.
_IPTABLES_TABLES: Final = frozenset({"filter", "raw", "mangle", "nat", "security"})
_ANY: Final = object()  # a value that is not known
_NEVER: Final = object()  # a field that such a packet does not have
_UNTRACKED: Final = frozenset({"new", "untracked"})  # overlayd exempts its packets from tracking
_VERDICTS: Final = {
    "accept": Action.ACCEPT,
    "drop": Action.DROP,
    "reject": Action.DROP,
    "return": Action.RETURN,
    "jump": Action.JUMP,
    "goto": Action.GOTO,
    "queue": Action.NOTHING,
}
_HARMLESS: Final = frozenset(
    {"counter", "log", "comment", "notrack", "mangle", "xt_comment", "ct helper", "meter"}
)
_PRIORITIES: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50}
RuleTexts = Mapping[tuple[str, str, str, int], str]  # by family, table, chain and handle


def nft_chains(
    listed: list[dict[str, Any]], texts: RuleTexts, packet: Packet, *, without_iptables: bool
) -> dict[str, Chain]:
    """Return the chains of a listed ruleset, compared with a packet.

    `without_iptables` leaves out tables that iptables(8) wrote.
    """
    families = {"inet", "netdev", "ip6" if packet.is_ipv6 else "ip"}
    chains: dict[str, Chain] = {}
    sets = {
        (each["family"], each["table"], each["name"]): each.get("elem", [])
        for item in listed
        for kind in ("set", "map")
        if (each := item.get(kind)) is not None
    }
    for kind in ("chain", "rule"):  # all chains before the first rule
        for item in listed:
            found = item.get(kind)
            if found is None or found["family"] not in families:
                continue
            if found["table"].startswith(_OWN_TABLES):
                continue
            is_of_iptables = found["family"] in ("ip", "ip6") and found["table"] in _IPTABLES_TABLES
            if without_iptables and is_of_iptables:
                continue
            if kind == "chain":
                chains[_key(found, found["name"])] = _chain(found, packet)
            elif (holder := chains.get(_key(found, found["chain"]))) is not None:
                holder.rules += _Reader(packet, sets, found, texts).rules()
    return chains


def _key(found: dict[str, Any], chain: str) -> str:
    return f"{found['family']} {found['table']} {chain}"


def _chain(found: dict[str, Any], packet: Packet) -> Chain:
    where = _key(found, found["name"])
    hook = found.get("hook", "")
    device = found.get("dev")
    if device is not None and packet.interface not in (device, *_listed(device)):
        hook = ""
    prio = found.get("prio", 0)
    priority = prio if isinstance(prio, int) else _PRIORITIES.get(str(prio), 0)
    if found.get("policy") != "drop":
        return Chain(hook, priority)
    insert = f"nft insert rule {where} udp dport {packet.port} accept"
    policy = Rule(
        matches=True,
        action=Action.DROP,
        where=f"the policy of nft chain {where}",
        remedy=_remedy(found["table"], packet, insert),
    )
    return Chain(hook, priority, policy)


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _remedy(table: str, packet: Packet, command: str) -> str:
    if table == "firewalld":
        return (
            f"firewall-cmd --permanent --add-port={packet.port}/udp && firewall-cmd --reload"
            if packet.incoming
            else command
        )
    return command


class _Reader:
    """Reads one rule."""

    def __init__(
        self,
        packet: Packet,
        sets: Mapping[tuple[str, str, str], list[Any]],
        rule: dict[str, Any],
        texts: RuleTexts,
    ) -> None:
        self._packet = packet
        self._sets = sets
        self._rule = rule
        self._place = _key(rule, rule["chain"])
        family, table, chain = rule["family"], rule["table"], rule["chain"]
        text = texts.get((family, table, chain, rule["handle"]))
        shown = f"'{text}'" if text else f"rule handle {rule['handle']}"
        self._where = f"nft chain {self._place}: {shown}"
        delete = f"nft delete rule {self._place} handle {rule['handle']}"
        insert = f"nft insert rule {self._place} udp dport {packet.port} accept"
        is_about_port = text is None or str(packet.port) in text
        self._remedy = _remedy(table, packet, delete if is_about_port else insert)

    def rules(self) -> list[Rule]:
        """Return the rule; several if it maps values to verdicts."""
        matches: bool | None = True
        found: list[Rule] = []
        for expression in self._rule.get("expr", []):
            ((kind, content),) = expression.items()
            if kind == "match":
                matches = _both(matches, self._match(content))
            elif kind in _VERDICTS:
                found.append(self._verdict(matches, kind, content))
            elif kind == "vmap":
                found += self._mapped(matches, content)
            elif kind not in _HARMLESS:
                matches = _both(matches, None)  # limits, foreign matches, translations
        return found

    def _verdict(self, matches: bool | None, kind: str, content: object) -> Rule:
        to = content.get("target", "") if isinstance(content, dict) else ""
        chain = f"{self._rule['family']} {self._rule['table']} {to}" if to else ""
        return Rule(matches, _VERDICTS[kind], self._where, self._remedy, chain)

    def _mapped(self, matches: bool | None, content: dict[str, Any]) -> list[Rule]:
        value = self._value(content.get("key"))
        found = []
        for each in self._elements(content.get("data")):
            if not isinstance(each, list) or len(each) != 2:
                continue
            wanted, verdict = each
            if isinstance(verdict, dict):
                ((kind, target),) = verdict.items()
                if kind in _VERDICTS:
                    hit = _both(matches, self._is_in(value, wanted))
                    found.append(self._verdict(hit, kind, target))
        return found

    def _match(self, content: dict[str, Any]) -> bool | None:
        left, operator, wanted = content.get("left"), content.get("op"), content.get("right")
        value = self._value(left)
        if value is _NEVER:
            return False
        if value is _ANY:
            return None
        if operator in ("<", ">", "<=", ">=") and isinstance(wanted, int):
            return _compared(value, str(operator), wanted)
        found = self._is_in(value, wanted)
        if found is None:
            return None
        return not found if operator == "!=" else found

    def _value(self, left: object) -> Any:
        """Return what the packet has in a field."""
        if not isinstance(left, dict) or len(left) != 1:
            return _ANY
        ((kind, content),) = left.items()
        if not isinstance(content, dict):
            return _ANY
        if kind == "payload":
            return self._payload(content)
        if kind == "meta":
            return self._meta(str(content.get("key")))
        if kind == "ct":
            return {"state": _UNTRACKED, "status": _NEVER}.get(str(content.get("key")), _ANY)
        if kind == "fib" and content.get("result") == "type" and self._packet.incoming:
            return "local" if "daddr" in _listed(content.get("flags")) else _ANY
        return _ANY

    def _payload(self, content: dict[str, Any]) -> Any:
        packet, protocol = self._packet, content.get("protocol")
        if protocol is None or protocol == "ether":
            return _ANY
        if protocol in ("udp", "th"):
            return {"dport": packet.port, "length": packet.size - 20}.get(
                str(content.get("field")), _ANY
            )
        if protocol != ("ip6" if packet.is_ipv6 else "ip"):
            return _NEVER
        return {
            "saddr": packet.source,
            "daddr": packet.target,
            "protocol": "udp",
            "nexthdr": "udp",
            "length": packet.size,
        }.get(str(content.get("field")), _ANY)

    def _meta(self, key: str) -> Any:
        packet = self._packet
        here, other = ("iif", "oif") if packet.incoming else ("oif", "iif")
        return {
            here: packet.interface,
            f"{here}name": packet.interface,
            other: _NEVER,
            f"{other}name": _NEVER,
            "l4proto": "udp",
            "nfproto": "ipv6" if packet.is_ipv6 else "ipv4",
            "protocol": "ip6" if packet.is_ipv6 else "ip",
            "length": packet.size,
            "pkttype": "host",
        }.get(key, _ANY)

    def _elements(self, data: object) -> list[Any]:
        if isinstance(data, str) and data.startswith("@"):
            return self._sets.get((self._rule["family"], self._rule["table"], data[1:]), [])
        if isinstance(data, dict) and isinstance(data.get("set"), list):
            return list(data["set"])
        return data if isinstance(data, list) else []

    def _is_in(self, value: Any, wanted: Any) -> bool | None:
        """Return whether a value is one of those wanted; None if that is not known."""
        if value is _NEVER:
            return False
        if value is _ANY:
            return None
        if isinstance(value, frozenset):  # connection states: any of them may be it
            hits = [self._is_in(each, wanted) for each in value]
            return hits[0] if len(set(hits)) == 1 else None
        if isinstance(wanted, dict) and isinstance(wanted.get("elem"), dict):
            wanted = wanted["elem"].get("val")
        if isinstance(wanted, list) or (isinstance(wanted, str) and wanted.startswith("@")):
            return self._is_any(value, self._elements(wanted))
        if isinstance(wanted, dict):
            if "set" in wanted:
                return self._is_any(value, self._elements(wanted))
            return _in_span(value, wanted)
        if isinstance(wanted, str) and wanted.endswith("*"):
            return str(value).startswith(wanted[:-1])
        return str(value) == str(wanted) or (value == "udp" and wanted == 17)

    def _is_any(self, value: Any, elements: list[Any]) -> bool | None:
        hits = [
            self._is_in(value, each[0] if isinstance(each, list) and each else each)
            for each in elements
        ]
        return True if True in hits else (None if None in hits else False)


@functools.cache  # the same rules are compared with several packets
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(text)


@functools.cache
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _both(first: bool | None, second: bool | None) -> bool | None:
    if first is False or second is False:
        return False
    return None if first is None or second is None else True


def _compared(value: Any, operator: str, wanted: int) -> bool | None:
    if not isinstance(value, int):
        return None
    return {
        "<": value < wanted,
        ">": value > wanted,
        "<=": value <= wanted,
        ">=": value >= wanted,
    }[operator]


def _in_span(value: Any, wanted: dict[str, Any]) -> bool | None:
    """Return whether a value is within a prefix or range."""
    try:
        if (prefix := wanted.get("prefix")) is not None:
            return _address(value) in _network(f"{prefix['addr']}/{prefix['len']}")
        if (span := wanted.get("range")) is not None:
            first, last = span
            if isinstance(value, int):
                return int(first) <= value <= int(last)
            address = int(ipaddress.ip_address(value))
            return int(ipaddress.ip_address(first)) <= address <= int(ipaddress.ip_address(last))
    except (ValueError, TypeError, KeyError):
        pass
    return None
