"""Following the records of remote endpoints by what changed of them."""

from __future__ import annotations

from typing import NamedTuple
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.dataplane.planning.inputs import (
    PlanInput,
    RecordsPosition,
    RemoteChanges,
    RemoteEndpoint,
)
from overlay.core.dataplane.planning.remote_table import updated
from overlay.core.log import live_entries
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.records import Scope
from overlay.core.remote_changes import has_followed, remote_changes
from overlay.model import Card, Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, node_id_of
from overlay.sim.environment.notary import FakeSigner

VNI = Vni(9)
SCOPE = Scope(VNI)
KEYS = [bytes([65 + number]) * 32 for number in range(3)]
IDS = [node_id_of(key) for key in KEYS]  # the first is this node's own
VTEPS = [Ip(bytes([192, 168, 56, 11 + number])) for number in range(2)]
GIVEN = PlanInput(
    Network(VNI, "blue", (Subnet(Ip(bytes([10, 0, 0, 0])), 24, Ip(bytes([10, 0, 0, 1]))),), IDS[0]),
    4789,
    Ip(bytes([192, 168, 56, 99])),
    1450,
)


class Step(NamedTuple):
    """The records that one node writes, and where the nodes are afterwards."""

    writer: int
    puts: list[int]
    deletes: list[int]
    is_dropped: bool  # the follower has left the network meanwhile
    vteps: list[Ip | None]
    is_read: bool


steps = st.builds(
    Step,
    st.sampled_from([0, 1, 1, 1, 2]),
    st.lists(st.integers(0, 4), max_size=5, unique=True),
    st.lists(st.integers(0, 2), max_size=1),
    st.sampled_from([False] * 9 + [True]),
    st.lists(st.sampled_from([*4 * VTEPS[:1], VTEPS[1], None]), min_size=2, max_size=2),
    st.sampled_from([True, True, False]),
)


def endpoint(number: int, name: str) -> Endpoint:
    """Return an endpoint."""
    ip = Ip(bytes([10, 0, 0, 2 + number]))
    return Endpoint(bytes([number]) * 8, VNI, name, mac_for(VNI, ip), (ip,))


def card(number: int) -> Card:
    """Return a node's card."""
    return Card(IDS[number], f"n{number}", KEYS[number], KEYS[number], VTEPS[0], 7948, 1, 1500, "t")


class Writer:
    """A node that writes, whose log another store follows."""

    def __init__(self, number: int) -> None:
        self.node_id = IDS[number]
        self.store = Store(self.node_id)
        self.store.accept_card(card(number))
        self._log = LogWriter(self.store, FakeSigner(KEYS[number]))

    def write(self, to: Store, puts: list[Endpoint], deletes: list[int]) -> None:
        """Write records, and have the other store merge them."""
        keys = [("endpoint", bytes([each]) * 8) for each in deletes]
        for segment in self._log.write(SCOPE, puts, keys):
            self.store.accept(segment)
        self.send(to)

    def send(self, to: Store) -> None:
        """Have the other store merge what it does not have yet."""
        version = to.version(self.node_id, SCOPE)
        for segment in self.store.segments_beyond(self.node_id, SCOPE, version):
            to.accept(segment)


class Follower:
    """Keeps remote endpoints by changes alone."""

    def __init__(self) -> None:
        self.position: RecordsPosition | None = None
        self.known: dict[tuple[NodeId, bytes], RemoteEndpoint] = {}
        self.wholes = 0

    def follow(self, changes: RemoteChanges) -> None:
        """Apply changes."""
        if changes.is_whole:
            self.known.clear()
            self.wholes += 1
        for key in changes.gone:
            self.known.pop(key, None)
        for each in changes.present:
            self.known[each.origin, each.endpoint.endpoint_id] = each
        self.position = changes.position


def expected(store: Store, vteps: dict[NodeId, Ip | None]) -> dict[object, RemoteEndpoint]:
    """Return the remote endpoints by reading all records."""
    return {
        (origin, value.endpoint_id): RemoteEndpoint(origin, vtep, value)
        for origin, value in store.values(SCOPE, "endpoint")
        if isinstance(value, Endpoint) and origin != store.self_id
        if (vtep := vteps.get(origin)) is not None
    }


@given(
    st.lists(steps, min_size=6, max_size=12),
    st.sampled_from([3, 4096, 4096]),
    st.sampled_from([2, 2, 4096]),
)
def test_followed_changes_give_what_reading_all_gives(
    sequence: list[Step], remembered: int, counted: int
) -> None:
    """Whatever is written, deleted, displaced by a bound, dropped or moved in between."""
    with (
        patch.object(limits, "CHANGES_REMEMBERED_MAX", remembered),
        patch.dict(live_entries.COUNT_MAX, endpoint=counted),
    ):
        store, follower = Store(IDS[0]), Follower()
        writers = [Writer(number) for number in range(3)]
        for number in range(3):
            store.accept_card(card(number))
        for serial, step in enumerate(sequence):
            writer = writers[step.writer]
            puts = [endpoint(each, f"c{serial}") for each in step.puts]
            writer.write(store, puts, step.deletes)
            if step.is_dropped:
                store.drop_scope(SCOPE)
                for each in writers[1:]:
                    each.send(store)
            vteps = {
                origin: step.vteps[IDS.index(origin) - 1]
                for origin in store.origins(SCOPE)
                if origin != IDS[0]
            }
            if step.is_read:
                follower.follow(remote_changes(store, SCOPE, vteps, follower.position))
                assert follower.known == expected(store, vteps)


def test_one_change_is_one_endpoint() -> None:
    """However many records there are, only the one that changed is looked at."""
    store, writer = Store(IDS[0]), Writer(1)
    store.accept_card(card(1))
    for number in range(100):
        writer.write(store, [endpoint(number, "c")], [])
    vteps: dict[NodeId, Ip | None] = {IDS[1]: VTEPS[0]}
    first = remote_changes(store, SCOPE, vteps, None)
    assert (len(first.present), first.is_whole) == (100, True)

    writer.write(store, [endpoint(7, "d")], [8])
    second = remote_changes(store, SCOPE, vteps, first.position)

    assert [each.endpoint.name for each in second.present] == ["d"]
    assert (second.gone, second.is_whole) == ([(IDS[1], bytes([8]) * 8)], False)
    third = remote_changes(store, SCOPE, {IDS[1]: None}, second.position)
    assert (third.present, len(third.gone)) == ([], 99)


def test_a_table_is_checked_against_all_records() -> None:
    """An endpoint that is missing, another one, or one too many; not after newer changes."""
    store, writer = Store(IDS[0]), Writer(1)
    store.accept_card(card(1))
    for number in range(3):
        writer.write(store, [endpoint(number, "c")], [])
    vteps: dict[NodeId, Ip | None] = {IDS[1]: VTEPS[0]}
    position = remote_changes(store, SCOPE, vteps, None).position
    first, second, third = remote_changes(store, SCOPE, vteps, None).present
    fourth = first._replace(endpoint=endpoint(3, "d"))
    other = third._replace(endpoint=endpoint(2, "d"))
    moved = third._replace(vtep=VTEPS[1])
    foreign = fourth._replace(origin=IDS[2])

    def is_followed(*known: RemoteEndpoint) -> bool:
        changes = RemoteChanges(known, position=position)
        return has_followed(store, SCOPE, vteps, updated(None, GIVEN, changes)[0])

    assert is_followed(first, second, third)
    for wrong in ([], [other], [moved], [third, fourth], [third, foreign]):
        assert not is_followed(first, second, *wrong)
    writer.write(store, [endpoint(4, "c")], [])
    assert is_followed(first, second), "changes that were not followed yet are no mistake"
