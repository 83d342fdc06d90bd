"""Containers that ended are remembered until their runtime says that they are gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from overlay.agent.endpoints import restart as module
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.rename import ContainerNames
from overlay.agent.endpoints.restart import Restart
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.runtimes.engines import EngineContainer
from overlay.agent.runtimes.targets import Target
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import EndedEndpoint, StoredContainer
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.model import parse_ip

OLD, NEW = "a" * 64, "b" * 64


def ended(container_id: str = OLD, target: str = "docker:web") -> EndedEndpoint:
    """Return the remembered endpoint of a container with two addresses."""
    return EndedEndpoint(
        container_id, target, 7, "web", "10.32.0.9", "020000000009", "eth0", True, ["sql"], [],
        more_ips=["fd00::9"],
    )  # fmt: skip


class Host:
    """A host with a Docker engine, and what was attached."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = StateDatabase(directory)
        self.containers: dict[str, EngineContainer] = {}
        self.answers = True
        self.attached: list[tuple[str, EndpointOptions]] = []
        self.refusals: list[OverlayError] = []
        self.now_s = 1000.0
        self.again: list[str] = []
        monkeypatch.setattr(module, "find_container", lambda _kind, name: self.find(name))
        monkeypatch.setattr(
            module, "is_removed", lambda _kind, name: self.answers and self.find(name) is None
        )
        monkeypatch.setattr(module, "resolve_target", self.resolve)
        monkeypatch.setattr("time.time", lambda: self.now_s)

    def put(self, container_id: str, name: str, *, runs: bool = True) -> None:
        """Have the engine know a container."""
        pid = os.getpid() if runs else None
        self.containers[container_id] = EngineContainer("docker", name, container_id, pid, "")

    def find(self, name: str) -> EngineContainer | None:
        """Return a container by its id or name."""
        named = {each.name: each for each in self.containers.values()}
        return (self.containers | named).get(name) if self.answers else None

    def resolve(self, text: str) -> Target:
        """Return a container's target, as `resolve_target` does."""
        found = self.find(text.partition(":")[2])
        if found is None:
            raise NotFoundError("there is no container")
        if found.pid is None:
            raise ConflictError("it is not running")
        descriptor = os.open("/dev/null", os.O_RDONLY)
        return Target(
            "docker",
            found.name,
            "/x",
            1,
            found.container_id,
            f"docker:{found.name}",
            descriptor=descriptor,
        )

    def start(self) -> Restart:
        """Start an agent."""
        node = SimpleNamespace(may_write=lambda _now: True)
        gossip = SimpleNamespace(node=node, transport=SimpleNamespace(now=lambda: 0.0))
        attacher = SimpleNamespace(
            attach=self.attach, context=SimpleNamespace(node=SimpleNamespace(gossip=gossip))
        )
        network = SimpleNamespace(name="blue")
        restart = Restart(
            self.state,
            cast("Directory", SimpleNamespace(network_by_vni=lambda _vni: network)),
            cast("EndpointAttacher", attacher),
            Attachments(),
            cast("ContainerNames", SimpleNamespace(follow=self.follow, follow_all=self.follow)),
            EventLog(self.state.directory),
        )
        restart.attached_again.connect(self.note)
        return restart

    async def attach(
        self, target: Target, _network: object, options: EndpointOptions, **_: bool
    ) -> None:
        """Attach, unless it is to be refused."""
        if self.refusals:
            raise self.refusals.pop(0)
        self.attached.append((target.text, options))

    async def follow(self, *_: str) -> None:
        """Follow no name."""

    async def note(self, name: str) -> None:
        """Note a container that is attached again."""
        self.again.append(name)

    def remembered(self) -> list[EndedEndpoint]:
        """Return what is on disk."""
        return documents.ENDED.load(self.state)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Return a host that remembers one Docker container."""
    made = Host(tmp_path, monkeypatch)
    documents.ENDED.put(made.state, ended())
    yield made
    made.state.close()


async def test_a_stopped_engine_forgets_no_container(host: Host) -> None:
    """An engine that is not there knows nothing; its container is attached once it runs."""
    host.answers = False
    restart = host.start()
    await restart.container_started("docker", OLD)
    assert [each.removed_s for each in host.remembered()] == [0.0]

    host.answers = True
    host.put(OLD, "web", runs=False)
    await restart.stream_opened("docker")
    assert host.attached == []
    host.put(OLD, "web")
    await restart.container_started("docker", OLD)

    assert [text for text, _ in host.attached] == ["docker:web"]
    assert host.remembered() == []


async def test_a_restarted_container_gets_all_its_addresses(host: Host) -> None:
    """Also the second address of a network is requested again, and the aliases."""
    host.put(OLD, "web")
    await host.start().container_started("docker", OLD)

    ((_, options),) = host.attached
    assert options.ips == (parse_ip("10.32.0.9"), parse_ip("fd00::9"))
    assert options.aliases == ("sql",)
    assert host.again == ["web"]


async def test_a_name_that_changed_while_it_was_stopped_is_followed(host: Host) -> None:
    """`docker rename` of a stopped container: the new name, unless one was given by hand."""
    host.put(OLD, "shop")
    await host.start().container_started("docker", OLD)
    documents.ENDED.put(host.state, replace(ended(), name="by-hand"))
    await host.start().container_started("docker", OLD)

    assert [options.name for _, options in host.attached] == ["shop", "by-hand"]


async def test_a_runtime_without_events_is_checked(host: Host) -> None:
    """While a container of it may start again; then nothing is left to check."""
    lxc = replace(ended(), target="lxc:web", container_id="web")
    documents.ENDED.put(host.state, lxc)
    restart = host.start()
    assert restart.needs_check("lxc")
    assert not restart.needs_check("unit")
    host.put("web", "web")
    await restart.check("lxc")

    assert [options.name for _, options in host.attached] == [lxc.name]
    assert not restart.needs_check("lxc")


async def test_a_removed_container_is_forgotten_after_a_while(host: Host) -> None:
    """The engine answers and does not know it: 10 minutes later it is forgotten, on disk, too."""
    restart = host.start()
    await restart.container_changed("docker", OLD)
    assert [each.removed_s for each in host.remembered()] == [1000.0]
    host.now_s += 599
    restart.quiet("docker")
    assert len(host.remembered()) == 1
    host.now_s += 2
    restart.quiet("docker")

    assert host.remembered() == []
    assert not restart.needs_events("docker")


async def test_a_kept_name_is_never_forgotten(host: Host) -> None:
    """The container that gets it long after is attached likewise, and is kept, too."""
    documents.ENDED.put(host.state, replace(ended(), keep=True))
    restart = host.start()
    await restart.container_changed("docker", OLD)
    host.now_s += 1e7
    restart.quiet("docker")
    host.put(NEW, "web")
    await restart.container_started("docker", NEW)

    ((_, options),) = host.attached
    assert (options.keep, options.ips[0]) == (True, parse_ip("10.32.0.9"))
    assert not restart.forget("web", set())


async def test_a_container_made_again_under_its_name_is_attached(host: Host) -> None:
    """Its former container was removed, or renamed and stopped, as Compose does."""
    restart = host.start()
    await restart.container_changed("docker", OLD)
    host.put(NEW, "web")
    await restart.container_started("docker", NEW)
    assert len(host.attached) == 1

    restart.remember(ended())
    host.put(OLD, "old_web", runs=False)
    await restart.container_started("docker", NEW)
    assert len(host.attached) == 2

    restart.remember(ended())
    host.put(OLD, "old_web")
    await restart.container_started("docker", NEW)
    assert len(host.attached) == 2, "the former one runs: it keeps its endpoint"


async def test_a_container_made_before_the_end_was_noticed(host: Host) -> None:
    """It started when nothing was remembered yet; the former one's removal attaches it."""
    host.put(OLD, "old_web", runs=False)
    host.put(NEW, "web")
    restart = host.start()
    restart.forget("docker:web", set())
    assert await restart.container_started("docker", NEW)
    assert host.attached == []

    restart.remember(ended())
    del host.containers[OLD]
    await restart.container_changed("docker", OLD)

    assert [text for text, _ in host.attached] == ["docker:web"]


async def test_a_failed_attach_is_remembered(host: Host) -> None:
    """It returns without an address that is taken; any other error keeps it remembered."""
    host.put(OLD, "web")
    host.refusals = [ConflictError("the address is taken"), OverlayError("the kernel refuses")]
    restart = host.start()
    assert not await restart.container_started("docker", OLD)
    assert len(host.remembered()) == 1

    host.refusals = [ConflictError("the address is taken")]
    assert await restart.container_started("docker", OLD)

    assert host.attached[0][1].ips == ()
    assert host.remembered() == []


async def test_a_bare_container_waits_for_its_namespace(host: Host) -> None:
    """One that a start makes again stays remembered; another one without a namespace does not."""
    for name, again in (("lasting", "always"), ("fleeting", "")):
        documents.CONTAINERS.put(host.state, StoredContainer(name, restart=again))
        documents.ENDED.put(host.state, ended(name, f"netns:{name}"))
    await host.start().attach_remembered("netns")

    assert [each.container_id for each in host.remembered()] == [OLD, "lasting"]
