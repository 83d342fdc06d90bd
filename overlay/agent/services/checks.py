"""Check this host's backends, and publish what changes about them.

Owns: which containers are checked, when, and the health records of this host.
Does not: know how one is tried (`attempt`), or what a result means (`core.services.health`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import NamedTuple

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.tasks import report_defect
from overlay.agent.records.service_catalog import ServiceCatalog
from overlay.agent.services.attempt import CheckPlace, attempt
from overlay.agent.services.installed_check import installation_problem
from overlay.agent.state.attachments import Attachments
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import BackendHealth, Key, Scope, key_of
from overlay.core.services.derivation import BackendIndex, Candidate
from overlay.core.services.health import BackendMonitor
from overlay.core.services.service import HealthCheck, Service
from overlay.model import Endpoint, Vni, is_host

_INSTALL = "Install it on this host as root's, with mode 755, or choose another check"


class _Wanted(NamedTuple):
    """A container to check for a service, and where."""

    vni: Vni
    service: str
    endpoint: str  # its name
    endpoint_id: bytes
    check: HealthCheck
    place: CheckPlace


class _Running(NamedTuple):
    """A check that runs, its task and its state."""

    wanted: _Wanted
    task: asyncio.Task[None]
    monitor: BackendMonitor


class HealthChecks(Controller):
    """The health checks of services on this host."""

    name = "health checks"
    problem = "results of health checks are not written"
    settle_s = limits.CHECK_SETTLE_S

    def __init__(
        self, context: NodeContext, attachments: Attachments, catalog: ServiceCatalog
    ) -> None:
        super().__init__(context.event_log)
        self._context = context
        self._gossip = context.gossip
        self._attachments = attachments
        self._catalog = catalog
        self._running: dict[tuple[Vni, Key], _Running] = {}
        self._problems: dict[tuple[Vni, Key], str] = {}  # of the newest result; empty: it passed
        self._room = asyncio.Semaphore(limits.CHECKS_AT_ONCE_MAX)

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Wait until this node's records are as new as they were, and its containers known."""
        await self._gossip.until_may_write()
        await self._attachments.compared.wait()
        try:
            yield
        finally:
            for each in self._running.values():
                each.task.cancel()
            self._running.clear()
            self._problems.clear()

    def problem_of(self, vni: Vni, service: str, endpoint_id: bytes) -> str:
        """Return why a container of this host failed its newest check of a service, or nothing."""
        key = key_of(BackendHealth(endpoint_id, service, is_healthy=False))
        return self._problems.get((vni, key), "")

    def faults(self) -> Iterator[Fault]:
        """Yield the programs that services want to be checked by, and that do not run here."""
        yield from super().faults()
        wanted = [each.wanted for each in self._running.values()]
        for name, service in sorted(
            {(each.check.argument, each.service) for each in wanted if each.check.kind == "exec"}
        ):
            problem = installation_problem(name)
            if problem:
                text = f"check {name} of service {service} cannot run here: {problem}"
                yield Fault(text, _INSTALL)

    async def reconcile(self) -> None:
        """Run a check for each backend here, and write the results that are news."""
        wanted = dict(islice(self._wanted(), limits.CHECKS_MAX))
        for key in self._running.keys() - wanted.keys():
            self._running.pop(key).task.cancel()
            self._problems.pop(key, None)
        for key, each in wanted.items():
            running = self._running.get(key)
            if running is None or running.wanted != each:
                if running is not None:
                    running.task.cancel()
                self._start(key, each)
        for vni in self._networks():
            self._write(vni)

    def _networks(self) -> set[Vni]:
        return {Vni(each.vni) for each in self._attachments.values()} | {
            vni for vni, _ in self._running
        }

    # --- which -----------------------------------------------------------------------------

    def _wanted(self) -> Iterator[tuple[tuple[Vni, Key], _Wanted]]:
        for vni in self._networks():
            services = [each for each in self._catalog.services(vni) if each.check is not None]
            network = self._context.directory.network_by_vni(vni)
            if not services or network is None:
                continue
            own = [each for each in self._context.directory.own_endpoints(vni) if not is_host(each)]
            candidates = (Candidate(self._gossip.node_id, each, MemberState.ALIVE) for each in own)
            index = BackendIndex(network, candidates, lambda *_: None)
            for service in services:
                for backend in index.backends(service):
                    found = self._wanted_check(service, backend.endpoint)
                    if found is not None:
                        yield (vni, _record_key(found)), found

    def _wanted_check(self, service: Service, endpoint: Endpoint) -> _Wanted | None:
        attachment = self._attachments.get(endpoint.endpoint_id)
        if attachment is None or not attachment.plugged or service.check is None:
            return None
        is_any = service.check.kind == "exec"  # the other kinds connect
        port = next((each for each in service.ports if is_any or each.protocol == "tcp"), None)
        if port is None:
            return None
        place = CheckPlace(
            attachment.netns_path,
            attachment.netns_identity,
            endpoint.ips[0],
            port.target,
            service.name,
        )
        return _Wanted(
            service.vni, service.name, endpoint.name, endpoint.endpoint_id, service.check, place
        )

    def _start(self, key: tuple[Vni, Key], wanted: _Wanted) -> None:
        store, own = self._gossip.node.store, self._gossip.node_id
        before = store.value(own, Scope(wanted.vni), key[1])
        is_healthy = before.is_healthy if isinstance(before, BackendHealth) else None
        monitor = BackendMonitor(wanted.check.threshold, is_healthy)
        task = asyncio.get_running_loop().create_task(self._check(wanted, monitor))
        self._running[key] = _Running(wanted, task, monitor)

    # --- one container ----------------------------------------------------------------------

    async def _check(self, wanted: _Wanted, monitor: BackendMonitor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            async with self._room:
                problem = await self._attempt(wanted)
            self._problems[wanted.vni, _record_key(wanted)] = problem
            if monitor.note(loop.time(), passed=not problem):
                self._report(wanted, problem)
                self.trigger()
            await asyncio.sleep(max(0.0, begun_s + wanted.check.period_s - loop.time()))

    async def _attempt(self, wanted: _Wanted) -> str:
        try:
            return await attempt(self._context.kernel, wanted.check, wanted.place)
        except Exception as error:  # noqa: BLE001 - a container's answer must not end its check
            report_defect(f"defect while checking {wanted.endpoint}", error)
            return "a defect in overlayd; see the agent's log"

    def _report(self, wanted: _Wanted, problem: str) -> None:
        text = f"{wanted.endpoint} fails the check of service {wanted.service}: {problem}"
        if not problem:
            text = f"{wanted.endpoint} passes the check of service {wanted.service}"
        level = logging.WARNING if problem else logging.INFO
        self._context.event_log.record("services", text, level=level)

    # --- records ----------------------------------------------------------------------------

    def _write(self, vni: Vni) -> None:
        """Write this host's results on a network, and delete those that nobody asks for."""
        scope, own = Scope(vni), self._gossip.node_id
        stored = {
            key_of(value): value
            for value in self._gossip.node.store.values_of(own, scope, "health")
            if isinstance(value, BackendHealth)
        }
        puts = []
        for (at, key), each in self._running.items():
            is_healthy = each.monitor.is_healthy
            if at != vni or is_healthy is None:
                continue
            value = BackendHealth(each.wanted.endpoint_id, each.wanted.service, is_healthy)
            if stored.get(key) != value:
                puts.append(value)
        deletes = [key for key in stored if (vni, key) not in self._running]
        if puts or deletes:
            self._gossip.publish(self._gossip.commit(scope, puts, deletes))


def _record_key(wanted: _Wanted) -> Key:
    return key_of(BackendHealth(wanted.endpoint_id, wanted.service, is_healthy=False))
