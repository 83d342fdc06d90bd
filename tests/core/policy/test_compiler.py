from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.dataplane.planning.inputs import PolicyRows
from overlay.core.dataplane.port_security import labels_of_allowed
from overlay.core.dataplane.state import GATEWAY_CLASS, NO_CLASS, PolicyClassRow, VerdictRow
from overlay.core.policy.compiler import PolicyCompiler, rule_numbers
from overlay.core.policy.decision import GATEWAY_SERVICES, Party, decide
from overlay.core.policy.policy import (
    Policy,
    parse_peer,
    parse_port_range,
)
from overlay.core.policy.population import Population
from overlay.model import (
    DEFAULT_DENY_LABEL,
    HOST_LABEL,
    PORT_SECURITY_OFF_LABEL,
    Endpoint,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    link_local_ip,
    mac_for,
    parse_ip,
)

VNI = Vni(700)
A = NodeId(b"A" * 16)
FOUR = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
SIX = Subnet(parse_ip("fd00:1::"), 64, parse_ip("fd00:1::1"))
RED = Subnet(parse_ip("10.2.0.0"), 24, parse_ip("10.2.0.1"))
BLUE = Network(VNI, "blue", (FOUR, SIX), A)
NETWORKS = (("blue", (FOUR, SIX)), ("red", (RED,)))
KINDS = ("label=web", "label=web=1", "label=db", "name=c2", "name=c9", "host", "world")
RANGES = ("cidr:10.0.0.0/8", "cidr:10.1.0.0/28", "cidr:10.1.0.3/32", "cidr:fd00::/16")
PEERS = (*KINDS, *RANGES, "network:red", "network:blue")
PORTS = ("tcp", "udp", "icmp", "80/tcp", "53/udp", "53/tcp", "1-1023/tcp", "8000-8100/tcp")
RESOLVERS = ("8.8.8.8", "10.2.0.7", "10.3.0.1", "2001:db8::1")
TRIED = ((6, 80), (6, 53), (6, 8001), (6, 8101), (6, 1023), (6, 1024), (17, 53), (17, 67), (1, 0))
TRIED_PACKETS = st.one_of(
    st.sampled_from([*TRIED, (58, 0), (132, 0)]),
    st.tuples(st.sampled_from([6, 17]), st.integers(0, 65_535)),
)


def endpoint(serial: int, *labels: tuple[str, str], more: Iterable[str] = ()) -> Endpoint:
    """Return the endpoint cN with the addresses .N and ::N."""
    ips = (parse_ip(f"10.1.0.{serial}"), parse_ip(f"fd00:1::{serial:x}"), *map(parse_ip, more))
    mac = mac_for(VNI, ips[0])
    return Endpoint(serial.to_bytes(8, "big"), VNI, f"c{serial}", mac, ips, (), labels)


def policy(name: str, action: str, source: str = "", to: str = "", *ports: str) -> Policy:
    """Return a policy, each side with the peers in a text."""
    assert action in ("allow", "deny")
    return Policy(
        name,
        VNI,
        "allow" if action == "allow" else "deny",
        tuple(map(parse_peer, source.split())),
        tuple(map(parse_peer, to.split())),
        tuple(map(parse_port_range, ports)),
    )


class Kernel:
    """The kernel's lookup in rows, by the definition of the longest prefix."""

    def __init__(self, rows: Iterable[PolicyClassRow | VerdictRow]) -> None:
        self.classes = [row for row in rows if isinstance(row, PolicyClassRow)]
        self.verdicts = [row for row in rows if isinstance(row, VerdictRow)]
        keys = [(row.source, row.destination, *row[2:5]) for row in self.verdicts]
        assert len(set(keys)) == len(keys)

    def class_of(self, ip: Ip) -> int:
        """Return the class of an address."""
        found = [
            row
            for row in self.classes
            if len(row.base) == len(ip)
            and int.from_bytes(row.base, "big") >> 8 * len(ip) - row.prefix_length
            == int.from_bytes(ip, "big") >> 8 * len(ip) - row.prefix_length
        ]
        return max(found, key=lambda row: row.prefix_length).number if found else NO_CLASS

    def decide(self, source: Ip, destination: Ip, protocol: int, port: int) -> VerdictRow:
        """Return the row that decides about a new connection."""
        pair = self.class_of(source), self.class_of(destination)
        protocol = 1 if protocol == 58 else protocol
        if pair[1] == GATEWAY_CLASS and (protocol, port) in GATEWAY_SERVICES:
            return VerdictRow(*pair, protocol, port, 16, allow=True)
        found = []
        for row in self.verdicts:
            is_default = row.source == row.destination == NO_CLASS
            if not is_default and (row.source, row.destination) != pair:
                continue
            if row.protocol and (
                row.protocol != protocol
                or row.port >> 16 - row.port_bits != port >> 16 - row.port_bits
            ):
                continue
            found.append(row)
        return max(found, key=lambda row: row.prefix_length)


def party(population: Population, ip: Ip) -> Party:
    """Return what the cluster knows of an address."""
    names = {
        name for name, subnets in population.networks if any(ip in subnet for subnet in subnets)
    }
    is_gateway = any(ip == subnet.gateway for subnet in population.network.subnets)
    for each in (*population.locals, *population.remotes):
        if ip in each.ips:
            return Party(
                ip, each.name, each.labels, HOST_LABEL in each.labels, False, frozenset(names)
            )
    is_resolver = ip in population.resolvers
    return Party(
        ip,
        is_host=is_gateway,
        is_gateway=is_gateway,
        networks=frozenset(names),
        is_resolver=is_resolver,
    )


@st.composite
def policies(draw: st.DrawFn) -> tuple[Policy, ...]:
    """Draw some policies of any kind."""
    peers = st.lists(st.sampled_from(PEERS), max_size=3, unique=True).map(" ".join)
    ports = st.lists(st.sampled_from(PORTS), max_size=3, unique=True)
    action = st.sampled_from(["allow", "deny"])
    count = draw(st.integers(0, 6))
    return tuple(
        policy(f"p{number}", draw(action), draw(peers), draw(peers), *draw(ports))
        for number in range(count)
    )


LABELS = st.lists(
    st.sampled_from([("web", "1"), ("web", "2"), ("db", "1"), HOST_LABEL]), max_size=2, unique=True
)


@st.composite
def populations(draw: st.DrawFn) -> Population:
    """Draw a network with endpoints here and elsewhere."""
    chosen = [endpoint(serial, *draw(LABELS)) for serial in range(2, 2 + draw(st.integers(0, 6)))]
    here = draw(st.integers(0, len(chosen)))
    labels = (DEFAULT_DENY_LABEL,) if draw(st.booleans()) else ()
    resolvers = draw(st.lists(st.sampled_from(RESOLVERS), unique=True))
    return Population(
        replace(BLUE, labels=labels),
        tuple(chosen[:here]),
        tuple(chosen[here:]),
        networks=NETWORKS,
        resolvers=tuple(map(parse_ip, resolvers)),
    )


def addresses(population: Population) -> list[Ip]:
    """Return the addresses of which something is known, some of them in no network."""
    everyone = (*population.locals, *population.remotes)
    others = (
        "8.8.8.8",
        "10.2.0.7",
        "10.3.0.1",
        "10.1.0.1",
        "2001:db8::1",
        "fd00:1::1",
        "fd00:2::1",
    )
    return [*(ip for each in everyone for ip in each.ips), *map(parse_ip, others)]


@given(policies(), populations(), st.data())
def test_the_rows_decide_what_policies_mean(
    chosen: tuple[Policy, ...], population: Population, data: st.DataObject
) -> None:
    """For every connection of which one side is an endpoint here."""
    kernel = Kernel(PolicyCompiler().compile(chosen, population).rows)
    numbers = rule_numbers(each.name for each in chosen)
    local = [ip for each in population.locals for ip in each.ips]
    if not local:
        return
    for _ in range(8):
        ends = [data.draw(st.sampled_from(local))]
        same_family = [ip for ip in addresses(population) if len(ip) == len(ends[0])]
        ends.append(data.draw(st.sampled_from(same_family)))
        source, destination = ends if data.draw(st.booleans()) else ends[::-1]
        protocol, port = data.draw(TRIED_PACKETS)
        expected = decide(
            chosen,
            party(population, source),
            party(population, destination),
            protocol,
            port,
            default_deny=DEFAULT_DENY_LABEL in population.network.labels,
        )
        found = kernel.decide(source, destination, protocol, port)

        assert found.allow == expected.allowed
        if expected.policy:
            assert found.rule == numbers[expected.policy]


def compiled(*chosen: Policy, population: Population | None = None) -> Kernel:
    """Return the kernel after policies were compiled."""
    given_population = Population(BLUE, (endpoint(2),)) if population is None else population
    return Kernel(PolicyCompiler().compile(chosen, given_population).rows)


def test_an_unknown_endpoint_may_be_anyone_that_is_denied() -> None:
    """Its record may be under way: until then each deny is about it, and no allow."""
    web, db = endpoint(2, ("app", "web")), endpoint(3, ("app", "db"))
    unknown, outside = parse_ip("10.1.0.77"), parse_ip("10.1.0.78")
    population = Population(BLUE, (db,), (), (outside,), NETWORKS)
    deny = compiled(policy("no", "deny", "label=app=web", "label=app=db"), population=population)
    closed = replace(population, network=replace(BLUE, labels=(DEFAULT_DENY_LABEL,)))
    allow = compiled(policy("yes", "allow", "label=app=web", "label=app=db"), population=closed)

    assert not deny.decide(unknown, db.ips[0], 6, 80).allow
    assert deny.decide(outside, db.ips[0], 6, 80).allow
    assert not allow.decide(unknown, db.ips[0], 6, 80).allow
    known = replace(closed, remotes=(web,))
    allow = compiled(policy("yes", "allow", "label=app=web", "label=app=db"), population=known)
    assert allow.decide(web.ips[0], db.ips[0], 6, 80).allow


@pytest.mark.parametrize("group", ["224.0.0.251", "255.255.255.255", "10.1.0.255"])
def test_a_broadcast_reaches_those_that_are_denied(group: str) -> None:
    """So a deny of some endpoint is about it; others may send it."""
    web, other = endpoint(2, ("app", "web")), endpoint(3)
    population = Population(BLUE, (web, other), (), (), NETWORKS)
    kernel = compiled(policy("no", "deny", "label=app=web", "name=db"), population=population)
    closed = replace(population, network=replace(BLUE, labels=(DEFAULT_DENY_LABEL,)))

    assert not kernel.decide(web.ips[0], parse_ip(group), 17, 5353).allow
    assert kernel.decide(other.ips[0], parse_ip(group), 17, 5353).allow
    assert not compiled(population=closed).decide(web.ips[0], parse_ip(group), 17, 5353).allow


def test_link_local_addresses_are_their_endpoints() -> None:
    """Port security lets each endpoint use one; nobody gets round a policy by it."""
    web, db = endpoint(2, ("app", "web")), endpoint(3, ("app", "db"))
    population = Population(BLUE, (web,), (db,), (), NETWORKS)
    kernel = compiled(policy("no", "deny", "label=app=web", "label=app=db"), population=population)
    source, other = link_local_ip(web.mac), parse_ip("fe80::77")

    assert not kernel.decide(source, link_local_ip(db.mac), 6, 80).allow
    assert not kernel.decide(source, db.ips[1], 6, 80).allow
    assert not kernel.decide(source, other, 6, 80).allow
    assert kernel.decide(link_local_ip(db.mac), source, 6, 80).allow


def test_an_allowed_address_is_its_endpoints() -> None:
    """A virtual address of two endpoints is denied what one is, and allowed what both are."""
    virtual = parse_ip("10.9.0.1")
    labels = labels_of_allowed([virtual, parse_ip("10.1.0.4")])
    web = endpoint(2, ("app", "web"), *labels)
    spare = endpoint(3, ("app", "spare"), *labels)
    db = endpoint(4, ("app", "db"))
    population = Population(BLUE, (db,), (web, spare), (), NETWORKS)
    deny = compiled(policy("no", "deny", "label=app=web", "label=app=db"), population=population)
    closed = replace(population, network=replace(BLUE, labels=(DEFAULT_DENY_LABEL,)))
    one = compiled(policy("yes", "allow", "label=app=web", "label=app=db"), population=closed)
    both = compiled(policy("yes", "allow", "label=app", "label=app=db"), population=closed)

    assert not deny.decide(virtual, db.ips[0], 6, 80).allow
    assert not one.decide(virtual, db.ips[0], 6, 80).allow
    assert both.decide(virtual, db.ips[0], 6, 80).allow
    assert deny.class_of(db.ips[0]) == deny.class_of(db.ips[1])


def test_only_pairs_with_an_endpoint_here_have_rows() -> None:
    """Others never meet here; unless a container here may send for others."""
    web, db = endpoint(2, ("app", "web")), endpoint(3, ("app", "db"))
    rule = policy("no", "deny", "label=app=web", "label=app=db")
    away = Population(BLUE, (endpoint(9),), (web, db), (), NETWORKS)
    router = replace(endpoint(9), labels=(PORT_SECURITY_OFF_LABEL,))
    routing = replace(away, locals=(router,))

    assert compiled(rule, population=away).decide(web.ips[0], db.ips[0], 6, 80).allow
    assert not compiled(rule, population=routing).decide(web.ips[0], db.ips[0], 6, 80).allow


def test_nothing_is_compiled_anew_without_a_change() -> None:
    """A plan is made in each pass; and an endpoint's change alters its own rows alone."""
    web, db = endpoint(2, ("app", "web")), endpoint(3, ("app", "db"))
    rule = policy("no", "deny", "label=app=web", "label=app=db", "80/tcp")
    before = Population(BLUE, (db,), (web, endpoint(5)), (), NETWORKS)
    compiler = PolicyCompiler()
    rows = compiler.compile((rule,), before)
    after = replace(before, remotes=(*before.remotes, endpoint(6, ("app", "web"))))
    changed = compiler.compile((rule,), after)

    assert compiler.compile((rule,), replace(after)) is changed
    new = set(changed.rows) - set(rows.rows)
    assert {row.base for row in new if isinstance(row, PolicyClassRow)} == {
        *endpoint(6).ips,
        link_local_ip(endpoint(6).mac),
    }
    assert set(rows.rows) <= set(changed.rows)
    assert len(new) == 3


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("POLICY_RANGES_MAX", 3),
        ("POLICY_CLASSES_MAX", 3),
        ("POLICY_VERDICTS_MAX", 3),
        ("POLICIES_PER_NETWORK_MAX", 1),
    ],
)
def test_what_does_not_fit_is_denied(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than leave out policies that deny."""
    monkeypatch.setattr(limits, name, most)
    web, db = endpoint(2, ("app", "web")), endpoint(3, ("app", "db"))
    population = Population(BLUE, (db,), (web,), (), NETWORKS)
    rules = (
        policy("no", "deny", "label=app=web", "label=app=db", "1-99/tcp"),
        policy("yes", "allow", "label=app=web"),
    )
    rows = PolicyCompiler().compile(rules, population)

    assert isinstance(rows, PolicyRows)
    assert rows.fault
    assert not Kernel(rows.rows).decide(web.ips[0], db.ips[0], 6, 443).allow
    assert Kernel(rows.rows).decide(web.ips[1], SIX.gateway, 17, 53).allow


def test_gateways_have_the_class_that_the_kernel_knows() -> None:
    """It always lets names and the agents' probes through to it."""
    kernel = compiled(policy("no", "deny", "", "host"))
    apart = compiled(policy("no", "deny", "", "cidr:10.1.0.1/32"))

    assert {kernel.class_of(subnet.gateway) for subnet in (FOUR, SIX)} == {GATEWAY_CLASS}
    assert apart.class_of(FOUR.gateway) == GATEWAY_CLASS != apart.class_of(SIX.gateway)
    assert GATEWAY_CLASS not in {compiled().class_of(ip) for ip in endpoint(2).ips}


def test_rules_have_numbers_of_their_own() -> None:
    """By their names alone, so that counters go on after a change of others."""
    few, many = rule_numbers(["Web", "db"]), rule_numbers([f"p{n}" for n in range(256)])

    assert few["web"] == rule_numbers(["web"])["web"]
    assert len(set(many.values())) == 256
    assert 0 < min(many.values()) <= max(many.values()) < limits.POLICY_RULES_MAX
