"""Find other programs' dropping chains, and extend DOCKER-USER.

A packet that one table accepts may still be dropped by another. Docker does so: on a host that did
not forward before, it sets the policy of `FORWARD` to drop. It provides the chain `DOCKER-USER`,
which it evaluates first and never changes, for rules of others; where that chain exists, overlayd's
rules are at its head. Packets to Docker's own bridges are left to Docker's rules. Where it does not
exist, no chain is changed: the dropping chain is reported, with commands that would accept
overlayd's packets.

Rules have the form that iptables(8) itself writes, so that it can show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import HOST_LINK_PREFIX
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import Request, attribute, attributes
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.elements.expression_lists import encoded, matches
from overlay.kernel.nft.expressions import Rule, number, text
from overlay.kernel.nft.messages import GET_CHAIN, GET_RULE, NEW_RULE, SUBSYSTEM, header
from overlay.kernel.nft.table import FAMILY_INET, FAMILY_UNSPEC, FORWARD, OWN_TABLES
from overlay.kernel.nft.tables import NftMissingError, NftTables

_IPV4, _IPV6 = 2, 10
_DELETE_RULE: Final = 8
_TABLE, _CHAIN, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 2, 3, 4
_POLICY_DROP: Final = 0
DOCKER_TABLE, _DOCKER_CHAIN = "filter", "DOCKER-USER"
_PROGRAMS: Final = {_IPV4: "iptables", _IPV6: "ip6tables"}
_FAMILY_NAMES: Final = {_IPV4: "ip", _IPV6: "ip6", FAMILY_INET: "inet"}

_FROM_UPLINKS, _TO_UPLINKS = (
    ex.iifname_prefix(HOST_LINK_PREFIX),
    ex.oifname_prefix(HOST_LINK_PREFIX),
)
ACCEPT_RULES: Final[tuple[Rule, ...]] = (
    (*_FROM_UPLINKS, *ex.oifname_prefix("docker"), ex.counter(), ex.return_to_caller()),
    (*_FROM_UPLINKS, *ex.oifname_prefix("br-"), ex.counter(), ex.return_to_caller()),
    (*_FROM_UPLINKS, ex.counter(), ex.accept()),
    (*_TO_UPLINKS, ex.counter(), ex.accept()),
)


class DroppingChain(NamedTuple):
    """A chain of another program whose policy drops overlayd's packets."""

    chain: str  # as nft(8) names it: family, table, chain
    remedy: str  # the commands that accept overlayd's packets


class _Chain(NamedTuple):
    family: int
    table: str
    name: str


class ForeignRules(NftTables):
    """The tables of other programs in this namespace."""

    def insert_accept_rules(self, *, ipv6: bool) -> tuple[bool, list[DroppingChain]]:
        """Insert overlayd's rules into each DOCKER-USER chain.

        Return whether any were missing, and the chains that still drop overlayd's packets. Raises
        OSError if the kernel refuses.
        """
        families = {_IPV4, FAMILY_INET, *({_IPV6} if ipv6 else ())}
        found = [each for each in self._chains() if each[0].family in families]
        dropping = [chain for chain, parts in found if _drops_forwarded(parts)]
        user_chains = _docker_user_chains(found)
        changed = [self._insert_missing(chain) for chain in user_chains]
        served = {(chain.family, chain.table) for chain in user_chains}
        obstacles = [
            DroppingChain(f"{_FAMILY_NAMES[c.family]} {c.table} {c.name}", _remedy(c))
            for c in dropping
            if (c.family, c.table) not in served and not self._has_accept_rules(c)
        ]
        return any(changed), obstacles

    def remove_accept_rules(self) -> bool:
        """Delete overlayd's rules; return whether there were any. Raises OSError."""
        deleted = [self._delete_rules(chain) for chain in _docker_user_chains(self._chains())]
        return any(deleted)

    def _chains(self) -> Iterator[tuple[_Chain, dict[int, bytes]]]:
        try:
            found = self._dump(GET_CHAIN, FAMILY_UNSPEC)
        except NftMissingError:
            return
        for message, parts in found:
            family = message.buffer[message.start]
            table, name = _text(parts[_TABLE]), _text(parts[_CHAIN])
            if not table.startswith(OWN_TABLES):
                yield _Chain(family, table, name), parts

    def _rules_in(self, chain: _Chain) -> list[tuple[bytes, bytes]]:
        """Return (handle, expressions) of each rule of a chain."""
        body = attribute(1, text(chain.table)) + attribute(_RULE_CHAIN, text(chain.name))
        return [
            (parts[_RULE_HANDLE], parts.get(_RULE_EXPRESSIONS, b""))
            for _, parts in self._dump(GET_RULE, chain.family, body)
            if (_text(parts[_TABLE]), _text(parts[_RULE_CHAIN])) == chain[1:]
        ]

    def _has_accept_rules(self, chain: _Chain) -> bool:
        rules = [raw for _, raw in self._rules_in(chain)]
        return all(any(matches(wanted, raw) for raw in rules) for wanted in ACCEPT_RULES[2:])

    def _insert_missing(self, chain: _Chain) -> bool:
        found = self._rules_in(chain)
        if all(any(matches(wanted, raw) for _, raw in found) for wanted in ACCEPT_RULES):
            return False
        steps = [_delete(chain, handle) for handle in _own_handles(found)]
        # Each is inserted at the head, so the last one goes first.
        steps += [_insert(chain, rule) for rule in reversed(ACCEPT_RULES)]
        self._transact(steps)
        return True

    def _delete_rules(self, chain: _Chain) -> bool:
        steps = [_delete(chain, handle) for handle in _own_handles(self._rules_in(chain))]
        if steps:
            self._transact(steps)
        return bool(steps)


def _docker_user_chains(found: Iterable[tuple[_Chain, dict[int, bytes]]]) -> list[_Chain]:
    return [
        chain for chain, _ in found if (chain.table, chain.name) == (DOCKER_TABLE, _DOCKER_CHAIN)
    ]


def _own_handles(rules: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [handle for handle, raw in rules if any(matches(rule, raw) for rule in ACCEPT_RULES)]


def _drops_forwarded(parts: dict[int, bytes]) -> bool:
    hook = parts.get(_CHAIN_HOOK, b"")
    where = attributes(hook, 0, len(hook)).get(1)
    policy, kind = parts.get(_CHAIN_POLICY), parts.get(_CHAIN_TYPE, b"")
    return where == number(FORWARD) and policy == number(_POLICY_DROP) and _text(kind) == "filter"


def _insert(chain: _Chain, rule: Rule) -> Request:
    body = attribute(1, text(chain.table)) + attribute(_RULE_CHAIN, text(chain.name))
    body += attribute(_RULE_EXPRESSIONS, encoded(rule))
    return (SUBSYSTEM | NEW_RULE, codec.NLM_F_CREATE, header(chain.family) + body)


def _delete(chain: _Chain, handle: bytes) -> Request:
    body = attribute(1, text(chain.table)) + attribute(_RULE_CHAIN, text(chain.name))
    body += attribute(_RULE_HANDLE, handle)
    return (SUBSYSTEM | _DELETE_RULE, 0, header(chain.family) + body)


def _remedy(chain: _Chain) -> str:
    program = _PROGRAMS.get(chain.family)
    if program is not None and (chain.table, chain.name) == (DOCKER_TABLE, "FORWARD"):
        insert = f"{program} -I FORWARD"
        ways = [f"{way} {HOST_LINK_PREFIX}+ -j ACCEPT" for way in ("-i", "-o")]
        return "; ".join(f"{insert} {way}" for way in ways)
    insert = f"nft insert rule {_FAMILY_NAMES[chain.family]} {chain.table} {chain.name}"
    ways = [f"{way} '\"{HOST_LINK_PREFIX}*\"' counter accept" for way in ("iifname", "oifname")]
    return "; ".join(f"{insert} {way}" for way in ways)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("ascii", "replace")
