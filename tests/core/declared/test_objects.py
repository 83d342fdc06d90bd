"""Declared objects: all replicas agree on one statement, whoever wrote and in whatever order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.declared.cleaner import DeclaredCleaner
from overlay.core.declared.kinds import OWN_KINDS
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    DeclaredObject,
    ForgottenNode,
    Key,
    Segment,
    Value,
    declared_key,
)
from overlay.model import Card, Ip, NodeId, node_id_of
from overlay.sim.environment.notary import FakeSigner

KIND = 1
ALIVE, DEAD = MemberState.ALIVE, MemberState.DEAD


class Member:
    """A node with its store; what others write reaches it when a test says so."""

    def __init__(self, number: int) -> None:
        key = bytes([number]) * 32
        self.node_id = node_id_of(key)
        self.store = Store(self.node_id)
        self.signer = FakeSigner(key)
        self.objects = DeclaredObjects(self.store, self.signer)
        self.log: list[Segment] = []

    def card(self) -> Card:
        """Return this member's card."""
        address = Ip(b"\x0a\0\0\1")
        return Card(self.node_id, "m", b"k" * 32, b"e" * 32, address, 7948, 1, 1500, "test")

    def write(self, *puts: Value, deletes: list[Key] | None = None) -> None:
        """Write into this member's own log."""
        writer = LogWriter(self.store, self.signer)
        for segment in writer.write(CLUSTER_SCOPE, puts, deletes or []):
            self.store.accept(segment)
            self.log.append(segment)

    def declare(self, body: bytes, name: str = "web") -> DeclaredObject:
        """Change an object as an agent does: above all that this member knows."""
        version = self.objects.next_version(KIND, name)
        assert version is not None
        value = DeclaredObject(KIND, name, version, body)
        self.write(value)
        return value

    def hear(self, other: Member) -> None:
        """Receive all that another member has written."""
        for segment in other.log:
            self.store.accept(segment)

    def body(self, name: str = "web") -> bytes | None:
        """Return what is in force about an object."""
        found = self.objects.in_force(KIND, name)
        return None if found is None else found.value.body

    def tidy(self, *, all_present: bool = False) -> None:
        """Delete what is left over."""
        self.write(deletes=self.objects.leftovers(all_present=all_present))


def members(count: int) -> list[Member]:
    """Return members that know each other's cards, in order of id."""
    found = sorted((Member(n + 1) for n in range(count)), key=lambda each: each.node_id)
    for each in found:
        for other in found:
            each.store.accept_card(other.card())
    return found


def meet(all_members: list[Member]) -> None:
    """Let every member hear all others."""
    for each in all_members:
        for other in all_members:
            each.hear(other)


def test_any_member_changes_what_another_one_created() -> None:
    """A change needs no permission and no answer of the creator."""
    one, two = members(2)
    one.declare(b"first")
    two.hear(one)
    two.declare(b"second")
    meet([one, two])

    assert one.body() == two.body() == b"second"


@given(bodies=st.tuples(st.binary(max_size=4), st.binary(max_size=4)), known=st.booleans())
def test_two_writers_at_once_leave_one_state(bodies: tuple[bytes, bytes], known: bool) -> None:
    """Both see one of the two states, the same one, and nothing of the other remains."""
    one, two = members(2)
    if known:
        one.declare(b"before")
        two.hear(one)
    one.declare(bodies[0])
    two.declare(bodies[1])
    meet([one, two])

    assert one.body() == two.body()
    assert one.body() in bodies
    for each in (one, two):
        each.tidy()
    meet([one, two])
    assert one.body() == two.body()
    assert one.objects.own_count() + two.objects.own_count() == 1


steps = st.lists(
    st.tuples(
        st.sampled_from(["declare", "remove", "hear", "tidy"]),
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    max_size=30,
)


@given(steps=steps)
def test_members_agree_after_any_history(steps: list[tuple[str, int, int]]) -> None:
    """Once all have met, the newest statement ever written is in force on all of them."""
    everyone = members(4)
    written: list[tuple[int, NodeId, bytes]] = []
    for number, (step, first, second) in enumerate(steps):
        member = everyone[first]
        if step == "hear":
            member.hear(everyone[second])
        elif step == "tidy":
            member.tidy()
        else:
            value = member.declare(b"" if step == "remove" else bytes([number + 1]))
            written.append((value.version, member.node_id, value.body))
    meet(everyone)

    expected = max(written)[2] if written else None
    assert [each.body() for each in everyone] == [expected] * 4
    for each in everyone:
        each.tidy()
    meet(everyone)
    assert [each.body() for each in everyone] == [expected] * 4
    assert sum(each.objects.own_count() for each in everyone) == bool(written)


def test_an_object_is_listed_until_it_is_removed() -> None:
    """Lists show what exists, in order of name; a removal is in force, but shown nowhere."""
    one, two = members(2)
    one.declare(b"x", "web")
    one.declare(b"y", "api")
    meet([one, two])
    assert [each.value.name for each in two.objects.existing(KIND)] == ["api", "web"]

    two.declare(b"", "web")
    meet([one, two])
    assert [each.value.name for each in one.objects.existing(KIND)] == ["api"]
    assert one.body("WEB") == b""


def test_a_removal_stays_until_nobody_contradicts_it() -> None:
    """It goes when no other log has the object, and everybody has been there for a while."""
    one, two = members(2)
    one.declare(b"x")
    two.hear(one)
    two.declare(b"")
    assert two.objects.leftovers(all_present=True) == []

    meet([one, two])
    one.tidy()
    meet([one, two])
    cleaner = DeclaredCleaner(two.objects)
    rest_s = limits.DECLARED_REMOVAL_REST_S
    assert cleaner.due([ALIVE], 0.0) == []
    assert cleaner.due([DEAD], rest_s - 1) == []
    assert cleaner.due([ALIVE], rest_s) == []
    assert cleaner.due([ALIVE], 2 * rest_s) == [declared_key(KIND, "web")]


def test_a_dead_writers_object_is_kept() -> None:
    """Forgetting the host that wrote a service last removes no service."""
    one, two = members(2)
    one.declare(b"x")
    two.hear(one)
    two.write(ForgottenNode(one.node_id))

    assert two.body() == b"x"


def test_a_banned_member_holds_no_object() -> None:
    """Its record counts until another member writes one, however high its version is."""
    one, two = members(2)
    highest = limits.DECLARED_VERSION_MAX
    one.write(DeclaredObject(KIND, "web", highest, b"hostile"))
    two.hear(one)
    assert two.objects.next_version(KIND, "web") is None

    two.write(ForgottenNode(one.node_id, b"w" * 64))
    assert two.body() == b"hostile"
    two.declare(b"ours")
    assert two.body() == b"ours"
    assert two.objects.leftovers(all_present=True) == []


def test_what_a_host_says_of_itself_is_not_overridden() -> None:
    """A liar would hide a host's plug so that a second one opens on its wire: a loop."""
    one, liar = members(2)
    highest = limits.DECLARED_VERSION_MAX
    for kind in sorted(OWN_KINDS):
        one.write(DeclaredObject(kind, "mine", 1, b"true"))
        liar.write(DeclaredObject(kind, "mine", highest, b"false"))
        meet([one, liar])

        for each in (one, liar):
            said = {placed.origin: placed.value.body for placed in each.objects.existing(kind)}
            assert said == {one.node_id: b"true", liar.node_id: b"false"}
            assert each.objects.leftovers(all_present=True) == []
        assert one.objects.next_version(kind, "mine") == 2
        one.write(DeclaredObject(kind, "mine", 2, b""))
        assert one.objects.leftovers(all_present=False) == []
        one.tidy(all_present=True)
        assert one.objects.in_force(kind, "mine") is None
