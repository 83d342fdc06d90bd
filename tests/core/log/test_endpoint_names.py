"""Whether any endpoint of a network has a name is known without reading all of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.records import Scope
from overlay.model import Card, Endpoint, Ip, NodeId, Vni, mac_for, node_id_of
from overlay.sim.environment.notary import FakeSigner

KEYS = [b"a" * 32, b"b" * 32]
ORIGINS = [node_id_of(key) for key in KEYS]
VNI, OTHER = Vni(7), Scope(8)
NAMES = ["web", "WEB", "Web", "db", "DB2"]
IP = Ip(b"\x0a\x00\x00\x02")


def endpoint(number: int, name: str) -> Endpoint:
    """Return an endpoint of that name."""
    return Endpoint(bytes([number]) * 8, VNI, name, mac_for(VNI, IP), (IP,))


class World:
    """Two origins, and a host that holds their logs."""

    def __init__(self) -> None:
        self.host = Store(NodeId(b"h" * 16))
        self._own = [Store(origin) for origin in ORIGINS]
        for key, origin in zip(KEYS, ORIGINS, strict=True):
            card = Card(origin, "n", key, key, IP, 7948, 1, 1500, "test")
            for store in (self.host, *self._own):
                store.accept_card(card)
        self._writers = [
            LogWriter(store, FakeSigner(key)) for store, key in zip(self._own, KEYS, strict=True)
        ]

    def write(self, origin: int, number: int, name: str) -> None:
        """Have an origin put an endpoint; delete it without a name."""
        puts = [endpoint(number, name)] if name else []
        deletes = [] if name else [("endpoint", bytes([number]) * 8)]
        for segment in self._writers[origin].write(Scope(VNI), puts, deletes):
            self._own[origin].accept(segment)
            self.host.accept(segment)

    def known(self) -> set[str]:
        """Return the names of all endpoints, in lower case."""
        found = self.host.values(Scope(VNI), "endpoint")
        return {value.name.lower() for _, value in found if isinstance(value, Endpoint)}


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 3), st.sampled_from(["", *NAMES])), max_size=60
    ),
    st.booleans(),
)
def test_names_follow_the_records(writes: list[tuple[int, int, str]], leaves: bool) -> None:
    """As endpoints come, are renamed and go, also with the logs that they are in."""
    world = World()
    for origin, number, name in writes:
        world.write(origin, number, name)
        known = world.known()
        for each in NAMES:
            found = world.host.has_endpoint_name(Scope(VNI), each)
            assert found == (each.lower() in known)
    if leaves:
        world.host.drop_scope(Scope(VNI))
    known = world.known()
    for each in NAMES:
        assert world.host.has_endpoint_name(Scope(VNI), each) == (each.lower() in known)
        assert not world.host.has_endpoint_name(OTHER, each)
