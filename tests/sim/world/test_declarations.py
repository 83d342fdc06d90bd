"""How fast services and the state of their backends are known everywhere, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from overlay.core.declared.kinds import SERVICE_KIND
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    BackendHealth,
    DeclaredObject,
    Scope,
    Value,
    key_of,
)
from overlay.core.services.service import Service, ServicePort
from overlay.model import NodeId, Vni, parse_ip
from overlay.sim.environment.network import Weather
from overlay.sim.host.host import Host
from overlay.sim.report.cluster import FIRST_VNI, Cluster
from overlay.wire.codec.services import encode_service

HOSTS, SERVICES = 50, 100
STEP_S = 0.05


class Declared:
    """Fifty hosts on one network that loses one datagram in fifty, with a hundred services."""

    def __init__(self) -> None:
        self._cluster = Cluster(HOSTS, Weather(loss=0.02, latency_s=0.001), endpoints=4)
        self._cluster.run(4.0)
        values = [declared(number) for number in range(SERVICES)]
        self.time_to_all(7, CLUSTER_SCOPE, *values)

    def scope_of(self, writer: int) -> Scope:
        """Return the scope of a host's network."""
        return Scope(self._cluster.vni_of(self._cluster.hosts[writer]))

    def time_to_all(self, writer: int, scope: Scope, *values: Value) -> float:
        """Write on one host; return how long it takes until all have it, in virtual seconds."""
        host, begun = self._cluster.hosts[writer], self._cluster.schedule.now
        host.publish(host.commit(scope, values))
        host.flush()
        while not all(_has(each, host.node_id, scope, values) for each in self._cluster.hosts):
            self._cluster.run(STEP_S)
            assert self._cluster.schedule.now < begun + 10
        return self._cluster.schedule.now - begun


def _has(host: Host, writer: NodeId, scope: Scope, values: Sequence[Value]) -> bool:
    assert host.node is not None
    store = host.node.store
    return all(store.value(writer, scope, key_of(each)) == each for each in values)


def declared(number: int) -> DeclaredObject:
    """Return one service."""
    ip = parse_ip(f"10.9.0.{number + 1}")
    ports = (ServicePort(80, 8080, "tcp", "http"), ServicePort(53, 53, "udp"))
    selector = (("app", f"service-{number}"),)
    service = Service(f"service-{number}", Vni(FIRST_VNI), (ip,), ports, selector)
    return DeclaredObject(SERVICE_KIND, service.name, 1, encode_service(service))


@pytest.fixture(scope="module")
def cluster() -> Declared:
    """Return the hosts, all of which know the services."""
    return Declared()


def test_a_service_is_everywhere_within_a_second(cluster: Declared) -> None:
    """Created on one host of fifty."""
    assert cluster.time_to_all(3, CLUSTER_SCOPE, declared(SERVICES)) <= 1.0


def test_a_failed_check_is_everywhere_within_a_second(cluster: Declared) -> None:
    """So that no new connection goes to that backend."""
    failed = BackendHealth(b"endpoint", "service-1", is_healthy=False)

    assert cluster.time_to_all(11, cluster.scope_of(11), failed) <= 1.0
