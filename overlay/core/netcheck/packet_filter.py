"""Decide what a host's packet filters do to one UDP packet: rules of any program.

The chains come from `nft_ruleset` and `iptables_ruleset`, which have already compared each rule
with the packet. What a rule compares may be unknown (its match is None): then a drop is possible
only, and what follows it is not certain either.

Owns: the order in which the kernel evaluates chains. Does not: know how rules are written.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

# In the order of the kernel (nft(8), "Address families"); a packet passes all that it meets.
HOOKS_IN: Final = ("ingress", "prerouting", "input")
HOOKS_OUT: Final = ("output", "postrouting", "egress")
_DEPTH_MAX: Final = 16  # of jumps, as in the kernel


class Packet(NamedTuple):
    """A UDP packet from or to this host."""

    incoming: bool
    source: str
    target: str
    interface: str
    port: int  # it is sent to
    size: int  # bytes, with the IP header

    @property
    def is_ipv6(self) -> bool:
        """Whether it is an IPv6 packet."""
        return ":" in self.target


class Action(enum.Enum):
    """The effect of a rule on the packets that it matches."""

    NOTHING = enum.auto()
    ACCEPT = enum.auto()
    DROP = enum.auto()
    JUMP = enum.auto()
    GOTO = enum.auto()
    RETURN = enum.auto()


class Rule(NamedTuple):
    """A rule, compared with one packet."""

    matches: bool | None  # None: not known
    action: Action
    where: str = ""  # the rule, as its program shows it
    remedy: str = ""  # a command that lets the packet pass
    to: str = ""  # the chain of a jump


_ACCEPTED: Final = Rule(matches=True, action=Action.ACCEPT)


@dataclass(slots=True)
class Chain:
    """A chain; one without a hook is only jumped to."""

    hook: str = ""
    priority: int = 0
    policy: Rule = _ACCEPTED
    rules: list[Rule] = field(default_factory=list)


class Obstacle(NamedTuple):
    """A rule or policy that drops a packet; `certain` is False if it may only do so."""

    where: str
    remedy: str
    certain: bool


class _Outcome(NamedTuple):
    action: Action  # ACCEPT, DROP, or NOTHING at the end of a chain
    certain: bool
    dropping: Rule | None  # the first that drops, or may


def find_obstacle(chains: Mapping[str, Chain], packet: Packet) -> Obstacle | None:
    """Return what drops a packet; None if nothing is known to."""
    hooks = HOOKS_IN if packet.incoming else HOOKS_OUT
    bases = [chain for chain in chains.values() if chain.hook in hooks]
    bases.sort(key=lambda chain: (hooks.index(chain.hook), chain.priority))
    possible: Rule | None = None
    for base in bases:
        outcome = _walk([*base.rules, base.policy], chains, 0)
        if outcome.action is Action.DROP and outcome.certain and outcome.dropping is not None:
            return Obstacle(outcome.dropping.where, outcome.dropping.remedy, certain=True)
        possible = possible or outcome.dropping
    return None if possible is None else Obstacle(possible.where, possible.remedy, certain=False)


def _walk(rules: Iterable[Rule], chains: Mapping[str, Chain], depth: int) -> _Outcome:
    certain = True
    possible: Rule | None = None
    for rule in rules:
        if rule.matches is False or rule.action is Action.NOTHING:
            continue
        if rule.action is Action.RETURN:
            if rule.matches:
                break
            certain = False
            continue
        action: Action = rule.action
        is_sure, dropping = True, rule
        if rule.action in (Action.JUMP, Action.GOTO):
            target = chains.get(rule.to)
            if target is None or depth >= _DEPTH_MAX:
                continue
            action, is_sure, found = _walk(target.rules, chains, depth + 1)
            dropping = found or rule
            if found is not None:
                possible = possible or found
        if action is Action.DROP:
            possible = possible or dropping
        if rule.matches and action in (Action.ACCEPT, Action.DROP):
            sure = certain and is_sure
            first = dropping if sure and action is Action.DROP else possible
            return _Outcome(action, sure, first)
        certain = certain and (action is Action.NOTHING and is_sure)
        if rule.matches and rule.action is Action.GOTO:
            break
    return _Outcome(Action.NOTHING, certain, possible)
