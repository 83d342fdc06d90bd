"""Services as one node sees them: whose virtual addresses count, and what is said of backends."""

from __future__ import annotations

from overlay import limits
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, BackendHealth, Participation, Scope
from overlay.core.services.service import HealthCheck, Service, ServicePort
from overlay.model import Card, Endpoint, Ip, Vni, mac_for, parse_ip
from overlay.sim.environment.notary import FakeSigner
from tests.core.test_view import BLUE, IDS, KEYS, Seat

VIP = parse_ip("10.1.0.100")
SCOPE = Scope(BLUE.vni)


class Services:
    """The services that a test has declared."""

    def __init__(self, *services: Service) -> None:
        self._services = services

    def services(self, vni: Vni) -> tuple[Service, ...]:
        """Return those on a network."""
        return tuple(each for each in self._services if each.vni == vni)


class ServiceSeat(Seat):
    """One node's store with services; "owner" created the network and owns its addresses."""

    def __init__(self, *services: Service) -> None:
        super().__init__(services=Services(*services))
        part = Participation(BLUE.vni, forwards=True)
        for name in IDS:
            self.tell(name, CLUSTER_SCOPE, *([BLUE] if name == "owner" else []), part)

    def virtual_ips(self) -> list[Ip]:
        """Return the virtual addresses that count."""
        return [port.ip for port in self.view.services.virtual_ports(BLUE)]

    def resting(self) -> list[bool]:
        """Return of each backend of the first virtual port whether it rests."""
        return [each.is_resting for each in self.view.services.virtual_ports(BLUE)[0].backends]


def service(name: str = "web", ip: Ip = VIP, check: HealthCheck | None = None) -> Service:
    """Return a service of containers with its name as an alias."""
    return Service(name, BLUE.vni, (ip,), (ServicePort(80, 80),), check=check)


def container(name: str, ip: Ip) -> Endpoint:
    """Return a container that is a backend of web."""
    endpoint_id = name.encode().ljust(8)
    return Endpoint(endpoint_id, BLUE.vni, name, mac_for(BLUE.vni, ip), (ip,), ("web",))


def test_a_service_has_the_containers_of_all_hosts() -> None:
    """Each with the host that it is on."""
    seat = ServiceSeat(service())
    seat.tell("owner", SCOPE, container("c1", parse_ip("10.1.0.7")))
    seat.tell("thief", SCOPE, container("c2", parse_ip("10.1.0.8")))
    (port,) = seat.view.services.virtual_ports(BLUE)

    assert [each.node for each in port.backends] == [IDS["owner"], IDS["thief"]]


def test_a_service_takes_no_address_from_others() -> None:
    """Any member may write a service, but diverts neither a gateway nor a container."""
    gateway, outside = BLUE.subnets[0].gateway, parse_ip("10.9.0.1")
    assert ServiceSeat(service(ip=gateway), service(ip=outside)).virtual_ips() == []

    seat = ServiceSeat(service(ip=parse_ip("10.1.0.7")))
    seat.tell("owner", SCOPE, container("c1", parse_ip("10.1.0.7")))
    assert seat.virtual_ips() == []


def test_a_false_claim_takes_no_virtual_address() -> None:
    """An endpoint counts only with an address that its host owns."""
    seat = ServiceSeat(service())
    seat.tell("thief", SCOPE, container("c1", VIP))

    assert seat.virtual_ips() == [VIP]


def test_of_two_services_with_one_address_one_counts() -> None:
    """Made on both sides of a partition; all hosts choose the same."""
    seat = ServiceSeat(service("api"), service("web"))

    assert seat.virtual_ips() == [VIP]


def test_only_a_backends_own_host_says_how_it_is() -> None:
    """A statement of another member about it has no effect."""
    seat = ServiceSeat(service(check=HealthCheck("tcp", "", 2.0, 1.0, 3)))
    backend = container("c1", parse_ip("10.1.0.7"))
    healthy = BackendHealth(backend.endpoint_id, "web", is_healthy=True)
    seat.tell("owner", SCOPE, backend)
    seat.tell("thief", SCOPE, healthy)
    assert seat.resting() == [True]

    seat = ServiceSeat(service(check=HealthCheck("tcp", "", 2.0, 1.0, 3)))
    seat.tell("owner", SCOPE, backend, healthy)
    assert seat.resting() == [False]


def test_a_change_that_backends_depend_on_is_seen() -> None:
    """A container of another host, that host's silence and answer, and that container's end."""
    seat, thief = ServiceSeat(service()), IDS["thief"]
    seat.tell("owner", SCOPE, container("c1", parse_ip("10.1.0.7")))
    assert seat.resting() == [False]
    other = container("c2", parse_ip("10.1.0.8"))
    seat.tell("thief", SCOPE, other)
    assert seat.resting() == [False, False]

    liveness = seat.view.services.liveness
    liveness.watch({thief: MemberState.ALIVE})
    for at in range(limits.LIVENESS_PROOF):
        ((_, number),) = liveness.tick(float(at))[0]
        liveness.answer(thief, number, float(at))
    assert seat.resting() == [False, False]
    for at in range(10, 12 + limits.LIVENESS_MISSES):
        number = liveness.tick(float(at))[0][0][1]
    assert seat.resting() == [False, True]
    liveness.answer(thief, number, 20.0)
    assert seat.resting() == [False, False]

    seat.delete("thief", SCOPE, other)
    assert seat.resting() == [False]


def test_a_check_that_changes_is_seen() -> None:
    """After the service was read without it."""
    seat = ServiceSeat(service(check=HealthCheck("tcp", "", 2.0, 1.0, 3)))
    backend = container("c1", parse_ip("10.1.0.7"))
    own = Store(IDS["owner"])
    own.accept_card(Card(own.self_id, "owner", KEYS["owner"], b"", VIP, 7948, 1, 1500, "test"))
    writer = LogWriter(own, FakeSigner(KEYS["owner"]))
    for value, is_resting in (
        (backend, True),
        (BackendHealth(backend.endpoint_id, "web", is_healthy=True), False),
        (BackendHealth(backend.endpoint_id, "web", is_healthy=False), True),
    ):
        for segment in writer.write(SCOPE, [value]):
            own.accept(segment)
            seat.store.accept(segment)
        assert seat.resting() == [is_resting]
