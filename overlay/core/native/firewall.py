"""Decide whether a host's firewall could drop or change the VXLAN packets of its members.

The native path takes these packets past the firewall, so where one judges them, an operator would
lose rules without a word. The question is about all packets at once: a rule that fits some of them,
or of which that is not known, may judge.

Owns: the packets in question, and the way through chains whose rules were compared with them.
Does not: know how rules are written (`kernel.nft.firewall`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from overlay.core.netcheck.packet_filter import HOOKS_IN, HOOKS_OUT, Action, Chain, Rule
from overlay.model import Ip

_DEPTH_MAX: Final = 16  # of jumps, as in the kernel
# Targets of iptables that neither drop nor change a packet, or only one that is tracked.
HARMLESS_TARGETS: Final = frozenset({"LOG", "NFLOG", "TRACE", "AUDIT", "CT", "NOTRACK", "CONNMARK"})


@dataclass(frozen=True, slots=True)
class VxlanTraffic:
    """The VXLAN packets between this host and members, in one direction."""

    incoming: bool
    own: Ip
    members: frozenset[Ip]
    interfaces: frozenset[tuple[int, str]]  # by index and name, that lead to members
    port: int

    @property
    def sources(self) -> frozenset[Ip]:
        """Return the addresses that they come from."""
        return self.members if self.incoming else frozenset({self.own})

    @property
    def targets(self) -> frozenset[Ip]:
        """Return the addresses that they go to."""
        return frozenset({self.own}) if self.incoming else self.members

    @property
    def hooks(self) -> tuple[str, ...]:
        """Return the hooks that they meet, as nft(8) names them."""
        return HOOKS_IN if self.incoming else HOOKS_OUT


def judging_rule(chains: Mapping[str, Chain], hooks: Iterable[str]) -> str:
    """Return where a rule, or a policy, may drop or change the packets; empty if none can.

    `Action.DROP` stands for everything that a packet does not pass unchanged.
    """
    walk = _Walk(chains)
    bases = [chain for hook in hooks for chain in chains.values() if chain.hook == hook]
    return next((where for base in bases if (where := walk.judge_of(base))), "")


class _Walk:
    """The ways of the packets through chains; each chain is walked once."""

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        self._chains = chains
        self._walked: dict[str, tuple[str, bool]] = {}

    def judge_of(self, base: Chain) -> str:
        """Return where a chain with a hook may judge; empty if it accepts for certain."""
        where, comes_out = self._through(base.rules, 0)
        return self._through([base.policy], 0)[0] if comes_out else where

    def _through(self, rules: Iterable[Rule], depth: int) -> tuple[str, bool]:
        """Return where a rule may judge, and whether packets may come out at the end."""
        may_return = False
        for rule in rules:
            if rule.matches is False or rule.action is Action.NOTHING:
                continue
            if rule.action is Action.DROP:
                return rule.where, False
            goes_on = rule.matches is None
            if rule.action is Action.RETURN:
                may_return = True
            elif rule.action in (Action.JUMP, Action.GOTO):
                where, comes_back = self._into(rule, depth)
                if where:
                    return where, False
                if rule.action is Action.JUMP:
                    goes_on = goes_on or comes_back
                else:
                    may_return = may_return or comes_back
            if not goes_on:
                return "", may_return
        return "", True

    def _into(self, rule: Rule, depth: int) -> tuple[str, bool]:
        target = self._chains.get(rule.to)
        if target is None:  # a target of iptables' own
            return ("" if rule.to.rpartition(" ")[2] in HARMLESS_TARGETS else rule.where), True
        if depth >= _DEPTH_MAX:
            return rule.where, False
        if rule.to not in self._walked:
            self._walked[rule.to] = self._through(target.rules, depth + 1)
        return self._walked[rule.to]
