"""Collect all facts within a given time: the slow parts run beside each other.

Owns: which addresses are probed, and the deadline. Does not: judge (`core.netcheck`).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from overlay import limits
from overlay.client.netcheck.agent_facts import (
    AgentFacts,
    ask_agent,
    checksum_errors,
    sandbox_count,
    unwell_members,
)
from overlay.core.netcheck.facts import (
    AddressFacts,
    AgentState,
    ChecksumErrors,
    Facts,
    LocalFacts,
)
from overlay.errors import NotFoundError, TimedOutError
from overlay.kernel.netcheck import counters
from overlay.kernel.netcheck.address_probe import probe_address
from overlay.kernel.netcheck.rulesets import Rulesets, blocked_packets, read_rulesets
from overlay.kernel.netcheck.underlay import UnderlayState, find_underlay
from overlay.model import parse_ip

if TYPE_CHECKING:
    from overlay.client.api import JsonObject
    from overlay.client.netcheck.knock import TokenCheck
    from overlay.client.paths import Paths

Found = TypeVar("Found")
_PROBE_S: Final = 1.2  # of an address, if there is so much time
_LONG_PROBE_S: Final = 4.5  # of a member that is known to be silent before the agent is asked
_PROBED_MAX: Final = 8  # silent members, beside each other
_RULES_PEERS_MAX: Final = 16  # whose packets are compared with the rules
_ANY_HOST: Final = ("other hosts", "192.0.2.1")  # RFC 5737: the address of nobody


@dataclass(frozen=True, slots=True)
class Question:
    """The subject of a check, and its time limit."""

    target: str | None
    seconds: float
    gossip_port: int | None = None
    vxlan_port: int | None = None
    token: TokenCheck | None = None
    agent: AgentState | None = None  # known already: then the agent is not asked


def collect(paths: Paths, question: Question) -> tuple[Facts, JsonObject]:
    """Return everything that can be found out, and the agent's own answer.

    Raises NotFoundError for a name without an address.
    """
    run = _Collection(paths, question)
    try:
        return run.collect()
    finally:
        run.pool.shutdown(wait=False, cancel_futures=True)


class _Collection:
    """One run: its deadline, and what runs beside each other."""

    def __init__(self, paths: Paths, question: Question) -> None:
        self.pool = ThreadPoolExecutor(max_workers=2 * _PROBED_MAX + 2)
        self._paths = paths
        self._question = question
        self._deadline = time.monotonic() + question.seconds
        self._before = counters.read_counters()
        self._probes: dict[str, Future[AddressFacts]] = {}

    def collect(self) -> tuple[Facts, JsonObject]:
        """Ask, probe, and return what was found."""
        question = self._question
        rules_read = self.pool.submit(read_rulesets)
        resolved = self.pool.submit(_addresses_of, question.target)
        agent = self._ask_agent()
        address = None if agent.peers else _first(resolved.result, self._deadline)
        if question.target is not None and not agent.peers and address is None:
            raise NotFoundError(
                f"there is neither a member nor a host {question.target!r}",
                why="the name has no address, as far as this host's resolvers know",
                hint="'overlayd members' lists the members; or give an address",
            )
        ports = _ports(agent.answer, question)
        underlay = find_underlay(
            agent.answer.get("address"), None if address is None else parse_ip(address)
        )
        tunnels = {
            peer.address: peer.wireguard_port
            for peer in agent.peers
            if peer.wireguard_answers is False
        }
        for each in _to_probe(agent, address):
            self._probe(each, ports, underlay, _PROBE_S, tunnels.get(each))
        noted = None
        if question.token is not None and address is not None and underlay is not None:
            noted = question.token.knock(underlay.address, address, self._left_s(_PROBE_S))
        addresses = {at: probe.result() for at, probe in self._probes.items()}
        if noted is not None and address is not None:
            addresses[address] = noted(addresses[address])
        rules = _first(rules_read.result, self._deadline) or Rulesets(
            unchecked=("packet filters were not read: it took too long",)
        )
        host = _host(agent, underlay, ports, rules, address, self._before)
        return Facts(host, agent.peers, addresses, question.target), agent.answer

    def _ask_agent(self) -> AgentFacts:
        """Ask the agent; packets to members that are silent already go out meanwhile."""
        question = self._question
        if question.agent is not None:
            return AgentFacts(question.agent, {})
        try:
            known, unwell = unwell_members(self._paths, question.target, question.seconds)
        except TimedOutError:
            return AgentFacts(AgentState.HANGING, {})
        for each in unwell[:_PROBED_MAX]:
            underlay = find_underlay(known["address"], parse_ip(each))
            self._probe(each, _ports(known, question), underlay, _LONG_PROBE_S)
        return ask_agent(self._paths, question.target, self._left_s(question.seconds))

    def _probe(
        self,
        address: str,
        ports: tuple[int, int],
        underlay: UnderlayState | None,
        seconds: float,
        wireguard_port: int | None = None,
    ) -> None:
        """Begin to send packets to an address, unless that was begun."""
        if address not in self._probes:
            self._probes[address] = self.pool.submit(
                probe_address,
                address,
                gossip_port=ports[0],
                vxlan_port=ports[1],
                wireguard_port=wireguard_port,
                mtu=min(9000, underlay.mtu if underlay else 1500),
                seconds=self._left_s(seconds),
            )

    def _left_s(self, at_most_s: float) -> float:
        return min(at_most_s, max(0.3, self._deadline - time.monotonic()))


def _first(result: Callable[[float], Found], deadline: float) -> Found | None:
    with contextlib.suppress(TimeoutError):
        return result(max(0.1, deadline - time.monotonic()))
    return None


def _addresses_of(target: str | None) -> str | None:
    """Return the first address of a name or address."""
    if target is None:
        return None
    try:
        found = socket.getaddrinfo(target, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0]).partition("%")[0]


def _ports(answer: JsonObject, question: Question) -> tuple[int, int]:
    """Return the ports of gossip and VXLAN: those given, the cluster's, the token's, or usual."""
    token = question.token
    return (
        question.gossip_port
        or answer.get("gossip_port")
        or (limits.GOSSIP_PORT_DEFAULT if token is None else token.gossip_port),
        question.vxlan_port
        or answer.get("vxlan_port")
        or (limits.VXLAN_PORT_DEFAULT if token is None else token.vxlan_port),
    )


def _to_probe(agent: AgentFacts, address: str | None) -> list[str]:
    """Return the addresses to send packets to: the target's, or those of silent members."""
    if address is not None:
        return [address]
    silent = [
        peer.address
        for peer in agent.peers
        if peer.address and (not peer.gossip_answers or peer.wireguard_answers is False)
    ]
    return silent[:_PROBED_MAX]


def _host(
    agent: AgentFacts,
    underlay: UnderlayState | None,
    ports: tuple[int, int],
    rules: Rulesets,
    address: str | None,
    before: counters.Counters,
) -> LocalFacts:
    after = counters.read_counters()
    tables = tuple(counters.full_tables(before, after))
    modules = tuple(counters.missing_modules(os.uname().release))
    errors = checksum_errors(agent.answer)
    recent = after.udp_checksum_errors - before.udp_checksum_errors
    if recent > 0 and "this host" not in [each.where for each in errors]:
        errors.append(ChecksumErrors("this host", after.udp_checksum_errors, recent))
    peers = [(peer.name, peer.address) for peer in agent.peers if peer.address]
    if address is not None:
        peers.append((address, address))
    found = LocalFacts(
        agent.state,
        sandboxes=sandbox_count(),
        gossip_port=ports[0],
        vxlan_port=ports[1],
        wireguard_ports=_wireguard_ports(agent),
        full_tables=tables,
        missing_modules=modules,
        checksum_errors=tuple(errors),
        rp_filter_drops=after.rp_filter_drops - before.rp_filter_drops,
        buffer_errors=after.buffer_errors - before.buffer_errors,
        unchecked=rules.unchecked,
        filter_rewritten_s=agent.answer.get("filter_rewritten_s"),
    )
    if underlay is None:
        return found
    return _with_underlay(found, underlay, rules, peers or [_ANY_HOST])


def _wireguard_ports(agent: AgentFacts) -> tuple[int, ...]:
    """Return the ports of the tunnels, of this host and of its members."""
    found = {peer.wireguard_port for peer in agent.peers} | {agent.answer.get("wireguard_port")}
    return tuple(sorted(port for port in found if port is not None))


def _with_underlay(
    found: LocalFacts, underlay: UnderlayState, rules: Rulesets, peers: list[tuple[str, str]]
) -> LocalFacts:
    is_ipv6 = ":" in underlay.address
    same_family = [each for each in peers if (":" in each[1]) == is_ipv6]
    blocked = blocked_packets(
        rules,
        same_family[:_RULES_PEERS_MAX],
        address=underlay.address,
        interface=underlay.interface,
        ports=(found.gossip_port, found.vxlan_port, *found.wireguard_ports),
        size=underlay.mtu,
    )
    runs_no_agent = found.agent in (AgentState.ABSENT, AgentState.DEAD)
    return replace(
        found,
        address=underlay.address,
        interface=underlay.interface,
        is_up=underlay.is_up,
        has_carrier=underlay.has_carrier,
        mtu=underlay.mtu,
        blocked=tuple(blocked),
        rp_filter=counters.rp_filter(underlay.interface),
        ipv6_disabled=is_ipv6 and counters.is_ipv6_disabled(underlay.interface),
        gossip_port_taken=runs_no_agent and is_port_taken(underlay.address, found.gossip_port),
    )


def is_port_taken(address: str, port: int) -> bool:
    """Return whether a program of this host has a UDP port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind((address, port))
        except OSError as error:
            return error.errno == 98  # EADDRINUSE
    return False
