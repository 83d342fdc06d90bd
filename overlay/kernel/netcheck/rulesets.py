"""Read the packet filters of this host, and find what they drop.

Owns: which programs are run. Does not: know what a rule means (`core.netcheck`).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from overlay.core.netcheck.facts import BlockedPacket
from overlay.core.netcheck.iptables_ruleset import iptables_chains
from overlay.core.netcheck.nft_ruleset import RuleTexts, nft_chains
from overlay.core.netcheck.packet_filter import Obstacle, Packet, find_obstacle

_SMALL: Final = 150  # bytes; as most packets of gossip, and of TCP without data in VXLAN
_RULES_MAX: Final = 10_000
_COMPARISONS_MAX: Final = 40_000  # of a rule with a packet: about a second
_TIMEOUT_S: Final = 3.0  # hosts with many thousand rules exist
# Each with the program that changes what it prints.
_SAVERS: Final = (
    ("iptables-save", "iptables", False),
    ("ip6tables-save", "ip6tables", True),
    ("iptables-legacy-save", "iptables-legacy", False),
    ("ip6tables-legacy-save", "ip6tables-legacy", True),
)
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # of a user who is not root, too
_TABLE: Final = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN: Final = re.compile(r"^\s+chain (\S+) \{")
_RULE: Final = re.compile(r"^\s+(.+?) # handle (\d+)$")


@dataclass(frozen=True, slots=True)
class Rulesets:
    """The rules of all programs; `unchecked` says what could not be read."""

    nft: list[dict[str, Any]] = field(default_factory=list)
    texts: RuleTexts = field(default_factory=dict)
    saved: tuple[tuple[str, str, bool], ...] = ()  # rules, program, whether for IPv6
    unchecked: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Return how many rules there are, about."""
        return len(self.nft) + sum(text.count("\n-A ") for text, _, _ in self.saved)


def read_rulesets() -> Rulesets:
    """Return the rules of this namespace."""
    if os.geteuid() != 0:
        return Rulesets(unchecked=("packet filters were not read: only root may (use sudo)",))
    unchecked = []
    listed = _output("nft", "-j", "list", "ruleset")
    nft: list[dict[str, Any]] = []
    texts: RuleTexts = {}
    if listed is None:
        unchecked.append(
            "nftables rules were not read: 'nft -j list ruleset' failed, or is missing"
        )
    else:
        nft = json.loads(listed or "{}").get("nftables", [])
        texts = parse_rule_texts(_output("nft", "-a", "list", "ruleset") or "")
    saved = tuple(
        (text, program, is_ipv6)
        for saver, program, is_ipv6 in _SAVERS
        if (text := _output(saver)) is not None
    )
    found = Rulesets(nft, texts, saved, tuple(unchecked))
    if found.count > _RULES_MAX:
        return Rulesets(
            unchecked=(f"packet filters were not judged: {found.count} rules are too many",)
        )
    return found


def _output(program: str, *arguments: str) -> str | None:
    """Return what a program prints; None if it is missing or fails."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        return None
    try:
        done = subprocess.run(
            [found, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None


def parse_rule_texts(listed: str) -> dict[tuple[str, str, str, int], str]:
    """Return the rules of `nft -a list ruleset` by family, table, chain and handle."""
    found = {}
    family = table = chain = ""
    for line in listed.splitlines():
        if (match := _TABLE.match(line)) is not None:
            family, table = match.groups()
        elif (match := _CHAIN.match(line)) is not None:
            (chain,) = match.groups()
        elif line.strip() == "}" or line.partition(" #")[0].endswith("{"):
            chain = ""  # a set, a map, or the end of a block
        elif chain and (match := _RULE.match(line)) is not None:
            found[family, table, chain, int(match[2])] = match[1]
    return found


def blocked_packets(
    rules: Rulesets,
    peers: Iterable[tuple[str, str]],
    *,
    address: str,
    interface: str,
    ports: Sequence[int],
    size: int,
) -> Iterator[BlockedPacket]:
    """Yield the packets between `address` and peers that a filter drops, or may.

    `peers` are pairs of name and address. `ports` are those of gossip, VXLAN and WireGuard;
    `size` is that of the largest packet, in bytes.
    """
    compared_max = max(1, _COMPARISONS_MAX // max(1, 4 * len(ports) * rules.count))
    for name, peer in itertools.islice(peers, compared_max):
        for port, incoming in itertools.product(ports, (True, False)):
            source, target = (peer, address) if incoming else (address, peer)
            packet = Packet(incoming, source, target, interface, port, _SMALL)
            small = _obstacle(rules, packet)
            if small is not None:
                yield BlockedPacket(port, incoming, name, _SMALL, is_large=False, obstacle=small)
            if port != ports[0] and (small is None or not small.certain):
                large = _obstacle(rules, packet._replace(size=size))
                if large is not None and large.certain:
                    yield BlockedPacket(port, incoming, name, size, is_large=True, obstacle=large)


def _obstacle(rules: Rulesets, packet: Packet) -> Obstacle | None:
    saved = [(text, program) for text, program, is_ipv6 in rules.saved if is_ipv6 == packet.is_ipv6]
    found = [
        find_obstacle(
            nft_chains(rules.nft, rules.texts, packet, without_iptables=bool(saved)), packet
        )
    ]
    found += [find_obstacle(iptables_chains(*each, packet), packet) for each in saved]
    obstacles = [each for each in found if each is not None]
    return min(obstacles, key=lambda each: not each.certain, default=None)
