"""How fast services and changes of their backends are in every host's plan, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from overlay.agent.records.service_catalog import ServiceCatalog
from overlay.core.declared.kinds import SERVICE_KIND
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    BackendHealth,
    DeclaredObject,
    Key,
    Scope,
    Value,
    key_of,
)
from overlay.core.services.service import HealthCheck, Service, ServicePort
from overlay.core.services.values import VirtualPort
from overlay.core.view import View
from overlay.model import Endpoint, Ip, Network, Subnet, Vni, parse_ip
from overlay.sim.environment.network import Weather
from overlay.sim.host.host import Host
from overlay.sim.report.cluster import FIRST_VNI, Cluster
from overlay.sim.world.declarations import objects_of
from overlay.wire.codec.services import encode_service

HOSTS, SERVICES, BACKENDS = 50, 100, 100
STEP_S = 0.05
LIMIT_S = 1.0
SCOPE = Scope(FIRST_VNI)
CHECK = HealthCheck("tcp", "", 2.0, 1.0, 3)
CHECKED = 7  # the service whose backends' hosts check them


class LabelledCluster(Cluster):
    """Each container is a backend of one service; those of a service are on many hosts."""

    def endpoint(self, host: Host) -> Endpoint:
        """Return a new container, selected by its label."""
        made = super().endpoint(host)
        number = int(made.name.removeprefix("c")) % SERVICES
        return replace(made, labels=(("app", f"s{number}"),))


class Services:
    """Fifty hosts on one network that loses one datagram in fifty, with all services declared."""

    def __init__(self) -> None:
        each_has = SERVICES * BACKENDS // HOSTS
        self._cluster = LabelledCluster(HOSTS, Weather(0.02, 0.001), endpoints=each_has)
        self._cluster.run(4.0)
        self.hosts = self._cluster.hosts
        self._network = Network(
            Vni(FIRST_VNI),
            "blue",
            (Subnet(parse_ip("10.0.0.0"), 8, parse_ip("10.255.0.1")),),
            self.hosts[0].node_id,
        )
        self._views = [self._view(host) for host in self.hosts[::10]]
        declared = [declared_object(service(number)) for number in range(SERVICES)]
        self.created_s = self.time_to_all(7, CLUSTER_SCOPE, declared, self._is_complete)

    @staticmethod
    def _view(host: Host) -> View:
        assert host.node is not None
        catalog = ServiceCatalog(objects_of(host))
        return View(host.node.store, host.node.membership, host.node_id, services=catalog)

    @staticmethod
    def _is_complete(ports: dict[Ip, VirtualPort]) -> bool:
        return len(ports) == SERVICES and all(
            len(each.backends) == BACKENDS for each in ports.values()
        )

    def time_to_all(
        self,
        writer: int,
        scope: Scope,
        values: Sequence[Value],
        is_planned: Callable[[dict[Ip, VirtualPort]], bool],
        deletes: tuple[Key, ...] = (),
    ) -> float:
        """Write on one host; return after how many virtual seconds all have it.

        A plan depends on the records alone, so the plans of a few hosts are derived.
        """
        host, begun = self.hosts[writer], self._cluster.schedule.now
        host.publish(host.commit(scope, values, deletes))
        host.flush()
        wanted = [(key_of(each), each) for each in values] + [(key, None) for key in deletes]
        while not all(_has(each, host, scope, wanted) for each in self.hosts):
            self._cluster.run(STEP_S)
            assert self._cluster.schedule.now < begun + 10
        assert all(is_planned(self._ports(each)) for each in self._views)
        return self._cluster.schedule.now - begun

    def _ports(self, view: View) -> dict[Ip, VirtualPort]:
        return {port.ip: port for port in view.services.virtual_ports(self._network)}

    def endpoint(self, writer: int, number: int) -> Endpoint:
        """Return a host's container that is a backend of a service."""
        host = self.hosts[writer]
        assert host.node is not None
        own = host.node.store.values_of(host.node_id, SCOPE, "endpoint")
        wanted = (("app", f"s{number}"),)
        return next(each for each in own if isinstance(each, Endpoint) and each.labels == wanted)


def _has(
    host: Host, writer: Host, scope: Scope, wanted: Sequence[tuple[Key, Value | None]]
) -> bool:
    assert host.node is not None
    store = host.node.store
    return all(store.value(writer.node_id, scope, key) == value for key, value in wanted)


def virtual_ip(number: int) -> Ip:
    """Return the address of a service."""
    return parse_ip(f"10.200.0.{number + 1}")


def service(number: int) -> Service:
    """Return one of the services."""
    check = CHECK if number == CHECKED else None
    ports, selector = (ServicePort(80, 8080),), (("app", f"s{number}"),)
    return Service(
        f"s{number}", Vni(FIRST_VNI), (virtual_ip(number),), ports, selector, check=check
    )


def declared_object(wanted: Service, version: int = 1) -> DeclaredObject:
    """Return the record of a service."""
    return DeclaredObject(SERVICE_KIND, wanted.name, version, encode_service(wanted))


def is_resting(ports: dict[Ip, VirtualPort], number: int, ip: Ip) -> bool | None:
    """Return whether a service's backend rests in a host's plan; None if it is none."""
    backends = ports[virtual_ip(number)].backends
    return next((each.is_resting for each in backends if each.ip == ip), None)


@pytest.fixture(scope="module")
def services() -> Services:
    """Return the hosts, all of which have planned the services."""
    return Services()


def test_all_services_are_planned_within_a_second(services: Services) -> None:
    """A hundred with a hundred backends each, created by one host of fifty at once."""
    assert services.created_s <= LIMIT_S


def test_a_detached_backend_is_gone_within_a_second(services: Services) -> None:
    """From the plans of all hosts."""
    gone = services.endpoint(11, 3)
    took_s = services.time_to_all(
        11, SCOPE, [], lambda ports: is_resting(ports, 3, gone.ips[0]) is None, (key_of(gone),)
    )

    assert took_s <= LIMIT_S


def test_a_drained_backend_gets_nothing_within_a_second(services: Services) -> None:
    """On whichever host the service is changed."""
    drained = services.endpoint(23, 5)
    changed = declared_object(replace(service(5), drained=(drained.name,)), 2)
    took_s = services.time_to_all(
        40, CLUSTER_SCOPE, [changed], lambda ports: is_resting(ports, 5, drained.ips[0]) is True
    )

    assert took_s <= LIMIT_S


@pytest.mark.parametrize("is_healthy", [True, False])
def test_a_check_counts_within_a_second(services: Services, is_healthy: bool) -> None:
    """The result of a check on a backend's host is in the plans of all hosts."""
    checked = services.endpoint(31, CHECKED)
    result = BackendHealth(checked.endpoint_id, f"s{CHECKED}", is_healthy)
    took_s = services.time_to_all(
        31,
        SCOPE,
        [result],
        lambda ports: is_resting(ports, CHECKED, checked.ips[0]) is not is_healthy,
    )

    assert took_s <= LIMIT_S
