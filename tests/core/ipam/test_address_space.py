"""One node's address space, from its own store."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.ipam import grants
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode, Scope, Value
from overlay.model import (
    Card,
    Endpoint,
    Grant,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    node_id_of,
    parse_ip,
)
from overlay.sim.environment.notary import FakeSigner

KEY = b"o" * 32
OWNER = node_id_of(KEY)
ONE, TWO = NodeId(b"1" * 16), NodeId(b"2" * 16)
BLUE = Network(Vni(9), "blue", (Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1")),), OWNER)
SCOPE = Scope(BLUE.vni)


class Owner:
    """The creator of the network: its store and its address space."""

    def __init__(self) -> None:
        self.store = Store(OWNER)
        self.author = LogWriter(self.store, FakeSigner(KEY))
        self.store.accept_card(
            Card(OWNER, "o", KEY, KEY, Ip(b"\x0a\x00\x00\x01"), 7948, 1, 1500, "test")
        )
        self.space = AddressSpace(self.store, OWNER)

    def write(self, value: Value, scope: Scope = SCOPE) -> None:
        """Write a record to the own log."""
        for segment in self.author.write(scope, [value]):
            self.store.accept(segment)

    def grant(self, requester: NodeId, request_id: bytes, count: int = 16) -> Grant:
        """Decide a request and write the grant."""
        request = GrantRequest(request_id, BLUE.vni, BLUE.subnets[0].base, count, exact=False)
        answer, _ = self.space.decide_grant(BLUE, requester, request, 0.0)
        assert isinstance(answer, Grant)
        self.write(answer)
        return answer


def endpoint(text: str) -> Endpoint:
    """Return an endpoint with that address."""
    ip = parse_ip(text)
    return Endpoint(ip * 2, BLUE.vni, "web", mac_for(BLUE.vni, ip), (ip,))


def test_two_requests_in_a_row_get_two_blocks() -> None:
    """A grant takes effect at once, whatever events are pending."""
    owner = Owner()
    assert owner.space.owned(BLUE, 0).count == 256
    first = owner.grant(ONE, b"request1")
    second = owner.grant(TWO, b"request2")

    assert first.last < second.first or second.last < first.first
    assert owner.space.owned(BLUE, 0).count == 256 - 32


def test_a_repeated_request_gets_the_same_grant() -> None:
    """A repeated request gets the same answer."""
    owner = Owner()

    assert owner.grant(ONE, b"request1") == owner.grant(ONE, b"request1")


def test_an_address_is_picked_in_order_and_rests_after_use() -> None:
    """The lowest free address is taken; a released one rests meanwhile."""
    owner = Owner()
    assert owner.space.pick(BLUE, 0, 0.0) == parse_ip("10.1.0.2")
    owner.write(endpoint("10.1.0.2"))
    assert owner.space.pick(BLUE, 0, 0.0) == parse_ip("10.1.0.3")

    owner.space.quarantine(BLUE.vni, [parse_ip("10.1.0.3")], 0.0)
    assert owner.space.pick(BLUE, 0, 1.0) == parse_ip("10.1.0.4")
    assert owner.space.pick(BLUE, 0, 1000.0) == parse_ip("10.1.0.3")


def test_one_address_has_one_fault() -> None:
    """In use, reserved, outside the subnets, or owned by another."""
    owner = Owner()
    owner.write(endpoint("10.1.0.2"))
    given = owner.grant(ONE, b"request1")

    assert owner.space.fault_of(BLUE, parse_ip("10.1.0.2")) == grants.IN_USE
    assert owner.space.fault_of(BLUE, parse_ip("10.1.0.1")) == grants.RESERVED
    assert owner.space.fault_of(BLUE, parse_ip("10.2.0.1")) == grants.OUTSIDE
    assert owner.space.fault_of(BLUE, given.first) == grants.NOT_OWNER
    assert owner.space.fault_of(BLUE, parse_ip("10.1.0.3")) is None


def test_a_forgotten_node_is_refused_and_its_space_returns() -> None:
    """Its space returns to the granter when all members made statements."""
    owner = Owner()
    given = owner.grant(ONE, b"request1")
    owner.write(ForgottenNode(ONE), CLUSTER_SCOPE)
    request = GrantRequest(b"request2", BLUE.vni, given.first, 1, exact=False)
    answer, _ = owner.space.decide_grant(BLUE, ONE, request, 0.0)
    assert isinstance(answer, GrantRefusal)
    assert answer.reason == grants.FORGOTTEN
    assert owner.space.reclaim_grants(BLUE, [OWNER]) == []

    [statement] = owner.space.reclaim_statements([BLUE])
    owner.write(statement, CLUSTER_SCOPE)
    assert owner.space.reclaim_grants(BLUE, [OWNER, TWO]) == []  # TWO has not stated what it keeps
    [back] = owner.space.reclaim_grants(BLUE, [OWNER])
    owner.write(back)

    assert (back.first, back.last) == (given.first, given.last)
    assert owner.space.owned(BLUE, 0).count == 256
    assert owner.space.reclaim_statements([BLUE]) == []


def test_the_reachable_owner_with_most_space_is_asked_first() -> None:
    """The owner with most space comes first; unreachable ones are left out."""
    owner = Owner()
    owner.grant(ONE, b"request1", 128)
    owner.grant(TWO, b"request2", 32)
    requester = AddressSpace(owner.store, NodeId(b"3" * 16))

    assert requester.grant_candidates(BLUE, 0, {ONE, TWO}) == [ONE, TWO]
    assert requester.grant_candidates(BLUE, 0, {TWO}) == [TWO]
    assert {share.owner for share in requester.shares(BLUE)} == {OWNER, ONE, TWO}


def test_false_endpoints_leave_an_owner_its_space() -> None:
    """A member that claims all addresses of an owner does not keep others from asking it."""
    owner = Owner()
    owner.write(BLUE, CLUSTER_SCOPE)
    key = b"t" * 32
    thief = node_id_of(key)
    owner.store.accept_card(Card(thief, "t", key, key, Ip(bytes([10, 0, 0, 2])), 7948, 1, 1500, ""))
    claims = [
        replace(endpoint(f"10.1.0.{number}"), endpoint_id=bytes([number]) * 8)
        for number in range(2, 255)
    ]
    for segment in LogWriter(Store(thief), FakeSigner(key)).write(SCOPE, claims):
        owner.store.accept(segment)

    asking = AddressSpace(owner.store, ONE)
    assert len(asking.shares(BLUE)) == 1
    assert asking.shares(BLUE)[0].free > 200
    assert asking.grant_candidates(BLUE, 0, {OWNER, thief}) == [OWNER]


class Virtual:
    """The virtual addresses of a test's services."""

    def __init__(self, *texts: str) -> None:
        self._ips = frozenset(map(parse_ip, texts))

    def virtual_ips(self, _vni: Vni) -> frozenset[Ip]:
        """Return all of them."""
        return self._ips


def test_a_virtual_address_is_given_to_nobody() -> None:
    """It is neither chosen, nor granted, nor taken by name, whichever node owns it."""
    owner = Owner()
    virtual = parse_ip("10.1.0.2")
    owner.space = AddressSpace(owner.store, OWNER, Virtual("10.1.0.2"))

    assert owner.space.pick(BLUE, 0, 0.0) == parse_ip("10.1.0.3")
    assert owner.space.fault_of(BLUE, virtual) == "in-use"
    request = GrantRequest(b"request1", BLUE.vni, virtual, 1, exact=True)
    answer, _ = owner.space.decide_grant(BLUE, ONE, request, 0.0)
    assert isinstance(answer, GrantRefusal)
    (share,) = owner.space.shares(BLUE)
    assert share.used == 1


class _Withdrawn:
    """Containers whose records another host withdrew, with one address."""

    def __init__(self, ip: Ip) -> None:
        self.ips = {ip}

    def withdrawn_ips(self, vni: Vni) -> set[Ip]:
        return self.ips if vni == BLUE.vni else set()


def test_an_address_whose_record_was_withdrawn_stays_taken() -> None:
    """However long that lasts, unless its own container asks; then it is free again."""
    owner = Owner()
    first = parse_ip("10.1.0.2")
    withdrawn = _Withdrawn(first)
    space = AddressSpace(owner.store, OWNER, withdrawn=withdrawn)

    assert space.pick(BLUE, 0, 1e9) == parse_ip("10.1.0.3")
    assert space.fault_of(BLUE, first) == grants.IN_USE
    assert space.fault_of(BLUE, first, withdrawn={first}) is None
    reserved = parse_ip("10.1.0.9")
    space.reserve(BLUE.vni, reserved)
    assert space.fault_of(BLUE, reserved, withdrawn={reserved}) == grants.IN_USE
    withdrawn.ips.clear()
    assert space.pick(BLUE, 0, 1e9) == first
