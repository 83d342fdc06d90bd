"""The health checks of one host: what is checked, what is written, and what ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.records.directory import Directory
from overlay.agent.records.service_catalog import ServiceCatalog
from overlay.agent.services import checks
from overlay.agent.services.attempt import CheckPlace
from overlay.agent.services.checks import HealthChecks
from overlay.agent.state.attachments import Attachments
from overlay.core.declared.kinds import SERVICE_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.records import BackendHealth, Participation, Scope
from overlay.core.services.service import HealthCheck, Service, ServicePort
from overlay.model import Endpoint, Network, Subnet, Vni, mac_for, parse_ip
from overlay.wire.codec.services import encode_service
from tests.agent.conftest import Sites, until

VNI = Vni(7)
SCOPE = Scope(VNI)
CHECK = HealthCheck("tcp", "", limits.CHECK_PERIOD_MIN_S, 0.1, 1)
WEB = Service("web", VNI, (parse_ip("10.7.0.9"),), (ServicePort(80, 8080),), check=CHECK)


class Bench:
    """One member with a network, and containers whose answers a test sets."""

    def __init__(self, sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = sites.first()
        self.gossip = gossip = self.site.gossip
        objects = DeclaredObjects(gossip.node.store, gossip.signer)
        catalog = ServiceCatalog(objects)
        directory = Directory(gossip.node, gossip.node_id, services=catalog)
        context = NodeContext(gossip, directory, cast("Any", None), self.site.event_log)
        self.declared = DeclaredService(context, objects)
        self.attachments = Attachments()
        self.attachments.compared.set()
        self.checks = HealthChecks(context, self.attachments, catalog)
        self.problems: dict[str, str] = {}
        self.tried: list[str] = []
        monkeypatch.setattr(checks, "attempt", self._attempt)
        ip = parse_ip("10.7.0.0")
        network = Network(VNI, "blue", (Subnet(ip, 24, parse_ip("10.7.0.1")),), gossip.node_id)
        self.site.write(network, Participation(VNI, forwards=True))

    async def _attempt(self, _kernel: Any, _check: HealthCheck, place: CheckPlace) -> str:
        self.tried.append(place.netns_path)
        return self.problems.get(place.netns_path, "")

    def attach(self, name: str, last: int) -> None:
        """Attach a container that is a backend of web."""
        ip = parse_ip(f"10.7.0.{last}")
        endpoint = Endpoint(name.encode().ljust(8), VNI, name, mac_for(VNI, ip), (ip,), ("web",))
        self.gossip.commit(SCOPE, [endpoint])
        self.attachments[endpoint.endpoint_id] = cast(
            "Any",
            SimpleNamespace(
                endpoint_id=endpoint.endpoint_id.hex(), vni=VNI, plugged=True, netns_path=name,
                netns_identity=(1, last), resolvers=(), port="p1", subnet_index=0, withdrawn=None,
            ),
        )  # fmt: skip
        self.checks.trigger()

    def declare(self, service: Service) -> None:
        """Create or change the service."""
        self.declared.put(SERVICE_KIND, service.name, encode_service(service))
        self.checks.trigger()

    def results(self) -> dict[str, bool]:
        """Return what this host has published, by container."""
        values = self.gossip.node.store.values_of(self.gossip.node_id, SCOPE, "health")
        return {
            value.endpoint_id.decode().strip(): value.is_healthy
            for value in values
            if isinstance(value, BackendHealth)
        }


@pytest.fixture
async def bench(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Return a member whose checks run."""
    made = Bench(sites, monkeypatch)
    await made.gossip.wait_may_write(10.0)
    running = asyncio.create_task(made.checks.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_each_backend_here_is_checked(bench: Bench) -> None:
    """Passing and failing are published, and both are events."""
    bench.attach("c1", 2)
    bench.attach("c2", 3)
    bench.problems["c2"] = "connection refused"
    bench.declare(WEB)

    await until(lambda: bench.results() == {"c1": True, "c2": False})
    texts = [event["text"] for event in bench.site.event_log.since(0.0)]
    assert "c1 passes the check of service web" in texts
    assert "c2 fails the check of service web: connection refused" in texts


async def test_a_result_is_written_when_it_changes(bench: Bench) -> None:
    """Not for each attempt: all hosts would have work every two seconds."""
    bench.attach("c1", 2)
    bench.declare(WEB)
    await until(lambda: bench.results() == {"c1": True})
    version = bench.gossip.node.store.version(bench.gossip.node_id, SCOPE)
    tried = len(bench.tried)
    await until(lambda: len(bench.tried) > tried + 2)
    assert bench.gossip.node.store.version(bench.gossip.node_id, SCOPE) == version

    bench.problems["c1"] = "status 503"
    await until(lambda: bench.results() == {"c1": False})


async def test_what_nobody_asks_for_ends(bench: Bench) -> None:
    """Of a detached container, and of a service that has no check any longer."""
    bench.attach("c1", 2)
    bench.attach("c2", 3)
    bench.declare(WEB)
    await until(lambda: bench.results() == {"c1": True, "c2": True})
    bench.gossip.commit(SCOPE, deletes=[("endpoint", b"c2".ljust(8))])
    bench.checks.trigger()
    await until(lambda: bench.results() == {"c1": True})

    bench.declared.remove(SERVICE_KIND, "web")
    bench.checks.trigger()
    await until(lambda: bench.results() == {})


async def test_a_defect_does_not_end_a_check(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a failure that the loop reports, and the next attempt counts."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    with monkeypatch.context() as broken:
        broken.setattr(bench, "problems", None)
        bench.attach("c1", 2)
        bench.declare(WEB)
        await until(lambda: bench.results() == {"c1": False})
        assert "defect" in bench.checks.problem_of(VNI, "web", b"c1".ljust(8))
    await until(lambda: bench.results() == {"c1": True})
    assert len(found) > 0
