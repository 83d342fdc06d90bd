"""Docker's events, and the comparison with its lists."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from overlay.agent.endpoints.edit import EndpointEdit
from overlay.errors import ConflictError
from tests.agent.plugins.docker.engine import ENDPOINT, NETWORK, OTHER, Engine


async def event(engine: Engine, kind: str, action: str, found: str, **attributes: str) -> None:
    """Handle an event as Docker's stream has it."""
    actor = {"ID": found, "Attributes": attributes}
    sync = engine.plugin._require_drivers().sync
    await sync._report_errors(sync._handle({"Type": kind, "Action": action, "Actor": actor}))


async def unnamed(engine: Engine) -> str:
    """Create a Docker network without naming the cluster's; return its pool."""
    pool = await engine.call("IpamDriver.RequestPool")
    data = {"AddressSpace": "overlayd", "Pool": pool["Pool"], "Gateway": ""}
    made = await engine.call("NetworkDriver.CreateNetwork", NetworkID=NETWORK, IPv4Data=[data])
    assert made == {}
    return str(pool["PoolID"])


async def test_a_network_gets_the_name_of_its_event(engine: Engine) -> None:
    """A call that is earlier than the event waits for it."""
    pool = await unnamed(engine)
    early = asyncio.create_task(engine.call("IpamDriver.RequestAddress", PoolID=pool))
    await asyncio.sleep(0)

    await event(engine, "network", "create", NETWORK, name="green")

    network = engine.agent.components.directory.network("green")
    assert (await early)["Address"].endswith("/16")
    assert dict(network.labels)["overlayd.made-by"] == "docker"


async def test_a_name_that_cannot_be_is_told_to_containers(engine: Engine) -> None:
    """The network exists in Docker already, so its first container gets the error."""
    pool = await unnamed(engine)

    await event(engine, "network", "create", NETWORK, name="host")

    answer = await engine.call("IpamDriver.RequestAddress", PoolID=pool)
    assert "cannot be named 'host'" in answer["Error"]


async def test_a_new_container_gets_a_new_address(engine: Engine) -> None:
    """A stopped container's address is kept for it while a new one starts."""
    pool = await engine.network()
    before = await engine.endpoint(pool)
    await engine.about("DeleteEndpoint")
    address = before.partition("/")[0]
    await engine.call("IpamDriver.ReleaseAddress", PoolID=pool, Address=address)
    await event(engine, "container", "create", "d" * 64, name="new")

    assert await engine.endpoint(pool, OTHER) != before


async def test_events_that_make_no_sense_are_reported(engine: Engine) -> None:
    """An event without what it should have ends nothing."""
    await event(engine, "network", "create", NETWORK)

    last = engine.agent.components.event_log.last("docker")
    assert "Docker's answer is not understood" in last["text"]


async def test_no_line_of_dockers_ends_the_agent(engine: Engine) -> None:
    """Such as one that is nested more deeply than a reader can go; it is reported as a defect."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, about: reported.append(about))
    sync = engine.plugin._require_drivers().sync

    await sync._report_errors(sync._handle_line(b"[" * 60_000))

    assert [type(each["exception"]) for each in reported] == [RecursionError]


async def test_what_docker_lacks_twice_is_removed(engine: Engine) -> None:
    """One comparison may be too early: Docker lists nothing that it is still creating."""
    pool = await engine.network()
    await engine.endpoint(pool)
    await engine.about("Join")
    components = engine.agent.components
    sync = engine.plugin._require_drivers().sync

    await sync._sweep(set(), set())
    assert components.ipam.reservations.all()
    assert components.directory.find_network("blue") is not None
    for _ in range(2):  # what an endpoint held is unused once the endpoint is gone
        await sync._sweep(set(), set())
        await sync._sweep(set(), set())

    assert components.runtime_endpoints.attached == {}
    components.runtime_endpoints.attached[OTHER] = None  # adopted: it has no binding
    for _ in range(2):
        await sync._sweep(set(), set())
    assert components.runtime_endpoints.attached == {}
    assert components.ipam.reservations.all() == []
    assert components.directory.find_network("blue") is None


async def test_a_name_that_is_taken_is_reported_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comparison tries again; an event each minute would push others out."""
    pool = await engine.network()
    await engine.endpoint(pool)
    await engine.about("Join")
    components = engine.agent.components
    endpoint = SimpleNamespace(name="docker-bbbbbbbbbbbb", aliases=())
    monkeypatch.setattr(components.directory, "endpoint_of", lambda _: endpoint)

    async def rename(_endpoint: str, edit: EndpointEdit) -> None:
        if edit.name is not None:
            raise ConflictError("the name 'web' is taken on network blue")

    components.runtime_endpoints.rename = rename
    sync = engine.plugin._require_drivers().sync

    for _ in range(3):
        await sync._names._rename(ENDPOINT, "web", [])

    told = [each["text"] for each in components.event_log.since(0.0) if each["kind"] == "docker"]
    assert told == ["web stays docker-bbbbbbbbbbbb in DNS: the name 'web' is taken on network blue"]
