"""The endpoints that Docker creates, joins and maps ports to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from overlay import limits
from overlay.agent.ipam.address_management import AddressManagement
from overlay.agent.state import docker_documents
from overlay.core.dataplane.published_port import PortRequest
from overlay.core.ipam.address_space import AddressSpace
from overlay.errors import ConflictError
from overlay.model import Ip
from tests.agent.plugins.docker.engine import ENDPOINT, NETWORK, OTHER, PORT_MAP, Engine


async def test_join_offers_an_interface(engine: Engine) -> None:
    """The answer names interface and gateway; a repeated call gets the same."""
    pool = await engine.network()
    await engine.endpoint(pool)

    answers = [await engine.about("Join") for _ in range(2)]

    assert answers[0] == answers[1]
    assert answers[0]["Gateway"] == "10.77.0.1"
    assert answers[0]["InterfaceName"]["DstPrefix"] == "eth"
    assert len(answers[0]["InterfaceName"]["SrcName"]) < 16
    assert list(engine.agent.components.runtime_endpoints.attached) == [ENDPOINT]


async def test_driver_options_are_options_of_the_port(engine: Engine) -> None:
    """They are stored with the endpoint, so that a join after a restart of the agent has them."""
    await engine.network()

    async def create(options: dict[str, Any]) -> dict[str, Any]:
        return await engine.call(
            "NetworkDriver.CreateEndpoint",
            NetworkID=NETWORK,
            EndpointID=ENDPOINT,
            Interface={"Address": "10.77.0.9/16"},
            Options=options,
        )

    for name, value, told in (
        ("priority", "9", "is not a priority"),
        ("allow-non-ip", "all", "driver option overlayd.allow-non-ip is not allowed"),
        ("colour", "red", "unknown driver option overlayd.colour"),
    ):
        assert told in (await create({f"overlayd.{name}": value}))["Err"]
    await create({"overlayd.priority": "5", "overlayd.vlan": "10", PORT_MAP: []})
    (stored,) = docker_documents.ENDPOINTS.load(engine.agent.components.gossip.state)
    assert stored.options == {"priority": "5", "vlan": "10"}

    await engine.about("Join")

    attached = engine.agent.components.runtime_endpoints.attached[ENDPOINT]
    assert (attached.controls.priority, str(attached.vlans)) == ("5", "10")


async def test_calls_out_of_order_are_errors_in_words(engine: Engine) -> None:
    """A call for what does not exist says so, and removals of it succeed."""
    for name in ("Join", "CreateEndpoint"):
        assert "has no Docker" in (await engine.about(name))["Err"]
    assert "has no Docker endpoint" in (await engine.about("EndpointOperInfo"))["Err"]
    for name in ("Leave", "DeleteEndpoint"):
        assert await engine.about(name) == {}

    pool = await engine.network()
    await engine.endpoint(pool)
    await engine.about("DeleteEndpoint")
    assert "has no Docker endpoint" in (await engine.about("Join"))["Err"]


async def test_a_failed_join_can_be_repeated(engine: Engine) -> None:
    """The error reaches Docker, and the endpoint stays until Docker deletes it."""
    pool = await engine.network()
    await engine.endpoint(pool)
    offered = engine.agent.components.runtime_endpoints
    offered.failure = ConflictError("the bridge is full")
    assert "the bridge is full" in (await engine.about("Join"))["Err"]

    offered.failure = None

    assert "InterfaceName" in await engine.about("Join")


async def test_ports_that_cannot_be_published_are_refused(engine: Engine) -> None:
    """Before the endpoint exists, in Docker's error line."""
    await engine.network()

    for port, told in (
        ({"Proto": 132, "Port": 80, "HostPort": 8080}, "ports of TCP and UDP"),
        ({"Proto": 6, "Port": 0}, "not understood"),
        ({"Proto": 6, "Port": 80, "HostIP": "x"}, "not understood"),
        (7, "not understood"),
    ):
        answer = await engine.call(
            "NetworkDriver.CreateEndpoint",
            NetworkID=NETWORK,
            EndpointID=ENDPOINT,
            Interface={"Address": "10.77.0.9/16"},
            Options={PORT_MAP: [port]},
        )
        assert told in answer["Err"]


async def test_ports_are_published_until_docker_revokes_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the end of the endpoint, where Docker leaves the call out."""
    pool = await engine.network()
    await engine.endpoint(pool)
    options = {PORT_MAP: [{"Proto": 17, "Port": 53, "HostIP": "192.0.2.1", "HostPort": 5300}]}
    early = await engine.about("ProgramExternalConnectivity", options=options)
    assert "to publish ports for" in early["Err"]
    await engine.about("Join")
    components = engine.agent.components
    vni = components.directory.network("blue").vni
    endpoint = SimpleNamespace(name="docker-bbbbbbbbbbbb", vni=vni)
    monkeypatch.setattr(components.directory, "endpoint_of", lambda _: endpoint)
    published = components.exposure.published_ports

    for end in ("RevokeExternalConnectivity", "Leave", "DeleteEndpoint"):
        assert await engine.about("ProgramExternalConnectivity", options=options) == {}
        request = PortRequest("udp", Ip(bytes([192, 0, 2, 1])), range(5300, 5301), 53)
        assert published.ports == {ENDPOINT: (endpoint.name, [request])}
        assert await engine.about(end) == {}
        assert published.ports == {}
        await engine.about("Join")
        await engine.endpoint(pool)
        await engine.about("Join")


async def test_ports_of_nobody_are_unpublished(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill at any moment; those of an endpoint that has another name follow it."""
    components = engine.agent.components
    published, offered = components.exposure.published_ports, components.runtime_endpoints
    published.ports = {ENDPOINT: ("docker-bbbbbbbbbbbb", []), OTHER: ("gone", [])}
    offered.attached[ENDPOINT] = SimpleNamespace()
    web = SimpleNamespace(name="web")
    monkeypatch.setattr(components.directory, "endpoint_of", lambda _: web)

    await engine.plugin._require_drivers().sync._ports.compare([ENDPOINT])

    assert published.ports == {ENDPOINT: ("web", [])}


async def test_what_docker_created_survives_the_agent(engine: Engine) -> None:
    """An agent that is killed knows pools, networks, endpoints and addresses again."""
    pool = await engine.network()
    await engine.endpoint(pool)
    components = engine.agent.components
    again = SimpleNamespace(**vars(components))
    gossip = components.gossip
    space = AddressSpace(gossip.node.store, gossip.node_id)
    again.ipam = AddressManagement(gossip, components.directory, space, components.event_log)
    engine.agent.require_components = lambda: again

    assert "InterfaceName" in await engine.about("Join")
    assert space.reserved(components.directory.network("blue").vni)


async def test_calls_at_once_are_bounded(engine: Engine) -> None:
    """The call beyond the bound fails at once; those before it are served."""
    engine.plugin._calls_in_progress = limits.DOCKER_CALLS_MAX

    async with asyncio.timeout(10):
        answer = await engine.call("IpamDriver.RequestPool")

    assert "already serves" in answer["Err"]
