"""No two nodes ever own one address, under all faults, step by step.

The model is harsher than reality. A node may hold any prefix of any log, received from any other
node, without entries that their origin has rewritten since (log cleaning). Requests are delivered
late, twice, out of order or never. A crash resets what a node knew of others to what it last
saved; only its own log is durable. Dead nodes are powered off permanently, then forgotten by any
node, several at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from overlay.core.ipam.address_choice import pick, reserved_addresses
from overlay.core.ipam.grants import decide_grant, superseded
from overlay.core.ipam.ownership import Ownership, ownership
from overlay.core.ipam.reclaim import (
    hand_back,
    members_without_statement,
    reclaim_grants,
    reclaim_statements,
)
from overlay.core.ipam.subnet_numbers import number_of
from overlay.core.protocol.messages import GrantRequest
from overlay.core.protocol.records import ForgottenNode, Key, ReclaimStatement, Value, key_of
from overlay.model import Grant, Ip, Network, NodeId, Subnet, Vni, ip_text, parse_ip

V = TypeVar("V", ForgottenNode, Grant, ReclaimStatement)
NODES = tuple(NodeId(bytes([65 + index]) * 16) for index in range(5))
SUBNET = Subnet(parse_ip("10.0.0.0"), 28, parse_ip("10.0.0.1"))
NETWORK = Network(Vni(7), "blue", (SUBNET,), NODES[0])
CLUSTER, BLUE = 0, 7
RESERVED = reserved_addresses(SUBNET)

nodes = st.sampled_from(NODES)
scopes = st.sampled_from([CLUSTER, BLUE])


@dataclass(slots=True)
class Replica:
    """A log as some node holds it: each key's last version and tombstones."""

    held: int = 0
    floor: int = 0
    entries: dict[Key, tuple[int, Value | None]] = field(default_factory=dict)

    def copy(self) -> Replica:
        """Return a copy of the log."""
        return Replica(self.held, self.floor, dict(self.entries))

    def learn(self, source: Replica, upto: int) -> None:
        """Copy the entries of `source` in `(held, upto]`, as it has them now."""
        if source.held <= self.held:
            return
        if self.held < source.floor:
            self.held, self.entries = 0, {}
        self.floor = source.floor
        for key, (version, value) in source.entries.items():
            if self.held < version <= upto:
                self.entries[key] = (version, value)
        self.held = max(self.held, upto)


@dataclass(slots=True)
class Node:
    """One node: its own logs are durable, those of others only if saved."""

    node_id: NodeId
    logs: dict[tuple[NodeId, int], Replica]
    saved: dict[tuple[NodeId, int], Replica]
    used: set[Ip] = field(default_factory=set)
    halted: bool = False
    view: Ownership | None = None

    def write(self, scope: int, puts: list[Value], deletes: list[Value] | None = None) -> None:
        """Append to the own log, deletes first."""
        log = self.logs[self.node_id, scope]
        for value in deletes or []:
            log.held += 1
            log.entries[key_of(value)] = (log.held, None)
        for value in puts:
            log.held += 1
            log.entries[key_of(value)] = (log.held, value)
        self.view = None

    def known(self, scope: int, kind: type[V]) -> list[tuple[NodeId, V]]:
        """Return all live values of a kind with their origins."""
        return [
            (origin, value)
            for (origin, log_scope), log in self.logs.items()
            if log_scope == scope
            for _, value in log.entries.values()
            if isinstance(value, kind)
        ]

    def ownership(self) -> Ownership:
        """Return the ownership by this node's records."""
        if self.view is None:
            self.view = ownership(
                NETWORK,
                self.known(BLUE, Grant),
                self.known(CLUSTER, ForgottenNode),
                self.known(CLUSTER, ReclaimStatement),
            )
        return self.view

    def settle(self) -> None:
        """Write the missing statements."""
        own = [grant for origin, grant in self.known(BLUE, Grant) if origin == self.node_id]
        statements = reclaim_statements(
            self.node_id,
            self.known(CLUSTER, ForgottenNode),
            self.known(CLUSTER, ReclaimStatement),
            ownerships=[self.ownership()],
            own_grants=own,
            used=[(NETWORK.vni, ip) for ip in sorted(self.used)],
        )
        if statements:
            self.write(CLUSTER, list(statements))


class GrantMachine(RuleBasedStateMachine):
    """The rules are faults and actions; the invariant is single ownership."""

    def __init__(self) -> None:
        super().__init__()
        keys = list(itertools.product(NODES, (CLUSTER, BLUE)))
        logs = [{key: Replica() for key in keys} for _ in range(2 * len(NODES))]
        self.nodes = {node_id: Node(node_id, logs.pop(), logs.pop()) for node_id in NODES}
        self.members = list(NODES)
        self.is_careful = False
        self.has_cleaned = False
        self.requests: list[tuple[NodeId, NodeId, GrantRequest]] = []
        self.serial = itertools.count(1)

    def running(self) -> list[Node]:
        """Return the nodes that are neither off nor gone."""
        return [node for node in self.nodes.values() if not node.halted]

    def act(self, node: Node) -> None:
        """Save the records by which the node owns what it uses.

        If nodes are careful in this run.
        """
        if self.is_careful:
            node.saved = {key: log.copy() for key, log in node.logs.items()}

    @initialize(is_careful=st.booleans())
    def choose(self, is_careful: bool) -> None:
        """Choose whether nodes save others' records before they act, as required."""
        self.is_careful = is_careful

    # --- records spread, or are lost -----------------------------------------------------

    @rule(viewer=nodes, source=nodes, origin=nodes, scope=scopes, part=st.integers(1, 4))
    def learn(self, viewer: NodeId, source: NodeId, origin: NodeId, scope: int, part: int) -> None:
        """Let part of a log arrive from any holder."""
        here, there = self.nodes[viewer], self.nodes[source]
        if here.halted or there.halted or origin == viewer:
            return
        copy, known = here.logs[origin, scope], there.logs[origin, scope]
        gap = known.held - copy.held
        copy.learn(known, copy.held + max(1, gap * part // 4))
        here.view = None

    @rule(viewer=nodes, source=nodes)
    def meet(self, viewer: NodeId, source: NodeId) -> None:
        """Send one node all that another has."""
        for origin, scope in itertools.product(NODES, (CLUSTER, BLUE)):
            self.learn(viewer, source, origin, scope, part=4)

    @rule(node_id=nodes, does_save=st.booleans())
    def crash(self, node_id: NodeId, does_save: bool) -> None:
        """Save a node's records of others, or lose those not saved."""
        node = self.nodes[node_id]
        for key in node.logs:
            if key[0] != node_id and does_save:
                node.saved[key] = node.logs[key].copy()
            elif key[0] != node_id:
                node.logs[key] = node.saved[key].copy()
        node.view = None

    @rule(node_id=nodes, scope=scopes, count=st.integers(1, 3))
    def clean_log(self, node_id: NodeId, scope: int, count: int) -> None:
        """Rewrite an origin's oldest entries, and drop those before."""
        node = self.nodes[node_id]
        log = node.logs[node_id, scope]
        if node.halted or len(log.entries) < count:
            return
        oldest = sorted((version, key) for key, (version, _) in log.entries.items())[:count]
        self.has_cleaned = True
        log.floor = oldest[-1][0]
        for _, key in oldest:
            value = log.entries.pop(key)[1]
            if value is not None:
                log.held += 1
                log.entries[key] = (log.held, value)
        node.view = None

    # --- requests and grants --------------------------------------------------------------

    @rule(
        requester=nodes,
        owner=st.integers(0, 4),
        run=st.integers(0, 3),
        count=st.sampled_from([1, 2, 4, 8, 16]),
        exact=st.booleans(),
        is_last_will=st.booleans(),
    )
    def ask(
        self, requester: NodeId, owner: int, run: int, count: int, exact: bool, is_last_will: bool
    ) -> None:
        """Send a request to an owner, and let it arrive at least once.

        It may be the last thing that the owner does.
        """
        owners = [node for node in self.running() if node.ownership().owned(node.node_id)]
        if not owners:
            return
        granter = owners[owner % len(owners)]
        runs = granter.ownership().owned(granter.node_id).runs
        around = Ip(runs[run % len(runs)][0].to_bytes(4, "big"))
        if requester != granter.node_id and not self.nodes[requester].halted:
            request_id = next(self.serial).to_bytes(8, "big")
            request = GrantRequest(request_id, NETWORK.vni, around, count, exact)
            self.requests.append((requester, granter.node_id, request))
            self.deliver(len(self.requests) - 1, tells=True)
            if is_last_will and run == 0:
                self.power_off(granter.node_id)

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 1000), tells=st.booleans())
    def deliver(self, index: int, tells: bool) -> None:
        """Let a request arrive, maybe again; its answer arrives now or later."""
        requester, granter, request = self.requests[index % len(self.requests)]
        node = self.nodes[granter]
        if node.halted:
            return
        view = node.ownership()
        self.act(node)
        answer = decide_grant(view, granter, requester, request, used=node.used)
        if isinstance(answer, Grant):
            if (granter, answer) not in node.known(BLUE, Grant):
                node.write(BLUE, [answer], list(superseded(view, granter, answer)))
            if tells and not self.nodes[requester].halted:
                log = node.logs[granter, BLUE]
                self.nodes[requester].logs[granter, BLUE].learn(log, log.held)
                self.nodes[requester].view = None

    @rule(node_id=nodes, recipients=st.sets(nodes), stays=st.booleans())
    def give_back(self, node_id: NodeId, recipients: set[NodeId], stays: bool) -> None:
        """Give away the space of a node without containers; it may then leave."""
        node = self.nodes[node_id]
        candidates = {recipient for recipient in recipients if not self.nodes[recipient].halted}
        if node.halted or node.used or len(self.running()) < 3:
            return
        self.act(node)
        node.write(BLUE, list(hand_back(node.ownership(), node_id, candidates)))
        if not stays:
            node.halted = True
            self.members.remove(node_id)

    # --- containers -----------------------------------------------------------------------

    @rule(node_id=nodes)
    def allocate(self, node_id: NodeId) -> None:
        """Start a container."""
        node = self.nodes[node_id]
        if not node.halted:
            ip = pick(SUBNET, node.ownership().owned(node_id), node.used, {}, RESERVED)
            if ip is not None:
                self.act(node)
                node.used.add(ip)

    @rule(node_id=nodes)
    def release(self, node_id: NodeId) -> None:
        """Stop a container."""
        node = self.nodes[node_id]
        if node.used:
            node.used.remove(max(node.used))

    # --- death and reclaim ----------------------------------------------------------------

    @rule(node_id=nodes)
    def power_off(self, node_id: NodeId) -> None:
        """Power a host off permanently, with its containers."""
        if len(self.running()) > 2:
            self.nodes[node_id].halted = True
            self.nodes[node_id].used.clear()

    @rule(by=nodes, node_id=nodes)
    def forget(self, by: NodeId, node_id: NodeId) -> None:
        """Declare a powered-off host gone."""
        if self.nodes[node_id].halted and not self.nodes[by].halted:
            self.nodes[by].write(CLUSTER, [ForgottenNode(node_id)])

    @rule(node_id=nodes)
    def take_stock(self, node_id: NodeId) -> None:
        """Write a node's missing statements, and let it reclaim space."""
        node = self.nodes[node_id]
        if not node.halted:
            self.act(node)
            node.settle()
            grants = reclaim_grants(node.ownership(), node_id, self.members)
            node.write(BLUE, list(grants))

    # --- the invariant --------------------------------------------------------------------

    @invariant()
    def nothing_is_owned_twice(self) -> None:
        """No two nodes' views, taken together, own one address."""
        owner: dict[int, NodeId] = {}
        for node in self.running():
            mine = {
                number
                for first, last in node.ownership().owned(node.node_id)
                for number in range(first, last + 1)
            }
            mine |= {number_of(ip) for ip in node.used}
            for number in mine:
                other = owner.setdefault(number, node.node_id)
                text = ip_text(Ip(number.to_bytes(4, "big")))
                assert other == node.node_id, f"{text}: {other[:1]!r} and {node.node_id[:1]!r}"

    def teardown(self) -> None:
        """With all records everywhere: one view, and no space lost without a vote."""
        for _ in range(3 * len(NODES)):
            for viewer, source in itertools.permutations(self.nodes, 2):
                self.meet(viewer, source)
            for node_id in NODES:
                self.take_stock(node_id)
                self.nothing_is_owned_twice()
        for node in self.running():
            view = node.ownership()
            missing = members_without_statement(view, self.members)
            assert all(self.nodes[node_id].halted for node_id in missing)
            if self.has_cleaned:  # an origin that dies while others restart its log takes the
                continue  # rewritten entries with it: safe, but not the same view
            for other in self.running():
                assert view.owned(other.node_id) == other.ownership().owned(other.node_id)
                proven = all(view.owner_of(ip) == other.node_id for ip in other.used)
                assert proven or not self.is_careful


DEEDS = "learn 10 meet 3 crash 3 clean_log 1 ask 12 deliver 4 give_back 2 allocate 3 release 3"
WORDS = f"{DEEDS} power_off 1 forget 4 take_stock 6".split()
WEIGHTS = {name: int(weight) for name, weight in zip(WORDS[::2], WORDS[1::2], strict=True)}


def walk(seed: int, steps: int) -> None:
    """Take weighted random steps, deeper than hypothesis does."""
    rng = Random(seed)
    machine = GrantMachine()
    machine.choose(is_careful=rng.random() < 0.5)
    names = list(WEIGHTS)
    weights = [weight * rng.choice([0.5, 1, 2]) for weight in WEIGHTS.values()]
    for name in rng.choices(names, weights, k=steps):
        one, two, three = (rng.choice(NODES) for _ in range(3))
        part, scope = rng.choice([1, 2, 4, 4]), rng.choice([CLUSTER, BLUE])
        match name:
            case "learn":
                machine.learn(viewer=one, source=two, origin=three, scope=scope, part=part)
            case "meet":
                machine.meet(viewer=one, source=two)
            case "crash":
                machine.crash(node_id=one, does_save=rng.random() < 0.3)
            case "clean_log":
                machine.clean_log(node_id=one, scope=scope, count=part)
            case "ask":
                machine.ask(
                    requester=one,
                    owner=rng.randrange(5),
                    run=rng.randrange(4),
                    count=rng.choice([1, 2, 4, 8, 16]),
                    exact=rng.random() < 0.3,
                    is_last_will=rng.random() < 0.1,
                )
            case "deliver" if machine.requests:
                machine.deliver(index=rng.randrange(1000), tells=rng.random() < 0.5)
            case "give_back":
                stays = rng.random() < 0.8
                machine.give_back(node_id=one, recipients={two, three}, stays=stays)
            case "forget":
                machine.forget(by=one, node_id=two)
            case "allocate" | "release" | "power_off" | "take_stock":
                getattr(machine, name)(node_id=one)
        machine.nothing_is_owned_twice()
    machine.teardown()


@pytest.mark.parametrize("block", range(10))
def test_random_walks_never_make_two_owners(block: int) -> None:
    """In eighty steps; and all agree once every record is everywhere."""
    for seed in range(20 * block, 20 * block + 20):
        walk(seed, steps=80)


GrantMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestGrants = GrantMachine.TestCase
