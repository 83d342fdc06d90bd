"""The calls of Docker's swarm: a manager's for any host, and those of the hosts of its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec
from overlay.agent.plugins.docker import container_names, engine_sync, swarm_holdings
from overlay.agent.plugins.docker.swarm_holdings import SwarmHoldings
from overlay.core.protocol.messages import GrantRequest
from overlay.model import Grant, Ip, NodeId, parse_ip
from tests.agent.plugins.docker.engine import ENDPOINT

if TYPE_CHECKING:
    from tests.agent.plugins.docker.engine import Engine

NETWORK = "hzjf7gmcf8uyosgzoroqfqalb"
GATEWAY = {"RequestAddressType": "com.docker.network.gateway"}


async def allocate(engine: Engine, **options: str) -> tuple[str, dict[str, Any]]:
    """Allocate a network as a manager does; return its pool and the answer."""
    pool = await engine.call(
        "swarm/IpamDriver.RequestPool", AddressSpace="overlayd-swarm", Pool="10.77.0.0/16"
    )
    data = {"AddressSpace": "", "Gateway": "10.77.0.1/16", "Pool": pool["Pool"]}
    answer = await engine.call(
        "swarm/NetworkDriver.AllocateNetwork", NetworkID=NETWORK, Options=options, IPv4Data=[data]
    )
    return str(pool["PoolID"]), answer


async def create(engine: Engine, generic: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Create a network as the host of a task does; return its pool and the answer."""
    pool = await engine.call(
        "swarm/IpamDriver.RequestPool", AddressSpace="overlayd", Pool="10.77.0.0/16"
    )
    answer = await engine.call(
        "swarm/NetworkDriver.CreateNetwork",
        NetworkID=NETWORK,
        Options={"com.docker.network.generic": generic},
        IPv4Data=[{"AddressSpace": "overlayd", "Pool": pool["Pool"], "Gateway": "10.77.0.1/16"}],
    )
    return str(pool["PoolID"]), answer


def blue(engine: Engine) -> Any:
    """Return the network blue as the cluster has it, or None."""
    return engine.agent.components.directory.find_network("blue")


async def test_scope_and_spaces_are_global(engine: Engine) -> None:
    """Docker accepts a driver for a swarm by its scope; the other one's stays local."""
    assert (await engine.call("swarm/NetworkDriver.GetCapabilities"))["Scope"] == "global"
    assert (await engine.call("NetworkDriver.GetCapabilities"))["Scope"] == "local"
    spaces = await engine.call("swarm/IpamDriver.GetDefaultAddressSpaces")
    assert len(set(spaces.values())) == 2


async def test_a_tasks_address_is_for_any_node(engine: Engine) -> None:
    """The manager's reservation is granted to the node that asks for it, and to no other use."""
    pool, answer = await allocate(engine, **{"overlayd.network": "blue"})
    assert answer == {"Options": {"overlayd.network": "blue"}}
    found = await engine.call("swarm/IpamDriver.RequestAddress", PoolID=pool)
    ip = parse_ip(found["Address"].partition("/")[0])
    components, network = engine.agent.components, blue(engine)
    space, now = components.ipam.allocator.space, components.gossip.transport.now()

    def grant(ip: Ip, *, exact: bool) -> Any:
        request = GrantRequest(bytes(7) + bytes([exact]), network.vni, ip, 1, exact=exact)
        return space.decide_grant(network, NodeId(bytes(range(16))), request, now)[0]

    other = grant(ip, exact=False)
    assert not isinstance(other, Grant) or not other.first <= ip <= other.last
    assert grant(ip, exact=True).first == ip
    assert space.pick(network, 0, now) != ip


async def test_a_local_reservation_is_granted_to_nobody(engine: Engine) -> None:
    """An address reserved for a container of this host is granted to no other."""
    await allocate(engine, **{"overlayd.network": "blue"})
    pool, _ = await create(engine, {"overlayd.network": "blue"})
    found = await engine.call("swarm/IpamDriver.RequestAddress", PoolID=pool, Address="10.77.3.3")
    assert found["Address"] == "10.77.3.3/16"
    components, network = engine.agent.components, blue(engine)
    request = GrantRequest(bytes(8), network.vni, parse_ip("10.77.3.3"), 1, exact=True)

    answer, _ = components.ipam.allocator.space.decide_grant(
        network, NodeId(bytes(range(16))), request, components.gossip.transport.now()
    )

    assert not isinstance(answer, Grant)


async def test_a_manager_and_a_task_share_a_host(engine: Engine) -> None:
    """The same address is requested twice, and released twice; the network stays until freed."""
    manager, _ = await allocate(engine, **{"overlayd.network": "blue"})
    found = await engine.call("swarm/IpamDriver.RequestAddress", PoolID=manager)
    worker, made = await create(engine, {"overlayd.network": "blue"})
    assert made == {}
    ip = found["Address"].partition("/")[0]
    again = await engine.call("swarm/IpamDriver.RequestAddress", PoolID=worker, Address=ip)
    assert again["Address"] == found["Address"]
    fields = {"NetworkID": NETWORK, "EndpointID": ENDPOINT}
    for call, more in (
        ("CreateEndpoint", {"Interface": {"Address": again["Address"]}}),
        ("Join", {"SandboxKey": "/var/run/docker/netns/1"}),
        ("Leave", {}),
        ("DeleteEndpoint", {}),
    ):
        assert "Err" not in await engine.call(f"swarm/NetworkDriver.{call}", **fields, **more)
    for pool in (worker, manager):
        await engine.call("swarm/IpamDriver.ReleaseAddress", PoolID=pool, Address=ip)

    await engine.call("swarm/NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
    assert blue(engine) is not None
    await engine.call("swarm/NetworkDriver.FreeNetwork", NetworkID=NETWORK)
    assert blue(engine) is None
    assert engine.agent.components.ipam.reservations.all() == []


async def test_a_new_manager_takes_over(engine: Engine) -> None:
    """It asks for what there is: the same pool, the same gateway and the tasks' addresses."""
    pool, _ = await allocate(engine, **{"overlayd.network": "blue"})
    again, answer = await allocate(engine)
    assert (again, answer) == (pool, {"Options": {"overlayd.network": "blue"}})
    ask = ("swarm/IpamDriver.RequestAddress",)
    gateway = await engine.call(*ask, PoolID=pool, Address="10.77.0.1", Options=GATEWAY)
    assert gateway["Address"] == "10.77.0.1/16"
    for _ in range(2):
        found = await engine.call(*ask, PoolID=pool, Address="10.77.4.4")
        assert found["Address"] == "10.77.4.4/16"
    refused = await engine.call(*ask, PoolID=pool, Address="10.99.4.4")
    assert "10.99.4.4 is not an address of network blue" in refused["Err"]


async def test_only_managers_create_networks(engine: Engine) -> None:
    """The host of a task that lacks the network is in another cluster, and says so."""
    _, answer = await create(engine, {"overlayd.network": "blue"})

    assert "network blue of the swarm is not in this host's cluster" in answer["Err"]
    assert blue(engine) is None


async def test_a_network_that_differs_is_an_event(engine: Engine) -> None:
    """Docker prints nothing when a swarm's network cannot be allocated."""
    await engine.agent.components.networks.create(NetworkSpec("blue", [SubnetSpec("10.88.0.0/16")]))

    _, answer = await allocate(engine, **{"overlayd.network": "blue"})

    assert "network blue exists with other subnets" in answer["Err"]
    last = engine.agent.components.event_log.last("docker")
    assert "Docker's swarm has a network that cannot be used" in last["text"]


async def test_a_name_told_early_is_used(engine: Engine) -> None:
    """Docker's event tells a swarm's network before its manager allocates it."""
    sync = engine.plugin._require_drivers().sync
    event = {"Type": "network", "Action": "create", "scope": "swarm"}
    await sync._handle({**event, "Actor": {"ID": NETWORK, "Attributes": {"name": "blue"}}})

    assert (await allocate(engine))[1] == {"Options": {"overlayd.network": "blue"}}


async def test_a_name_that_no_event_tells_is_asked_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swarm that has just been made tells of its first network in no event."""
    asked: list[str] = []

    def query(path: str) -> dict[str, str]:
        asked.append(path)
        return {"Name": "blue"}

    monkeypatch.setattr(engine_sync, "query_docker", query)
    assert (await allocate(engine))[1] == {"Options": {}}
    sync = engine.plugin._require_drivers().sync

    for _ in range(2):
        await sync._name_unbound()

    assert blue(engine) is not None
    assert asked == [f"/networks/{NETWORK}"]


async def test_what_the_swarm_holds_is_kept(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task's address stays reserved however long its image takes; others are released."""
    monkeypatch.setattr(engine_sync, "query_docker", lambda *_: [])
    pool, _ = await allocate(engine, **{"overlayd.network": "blue"})
    found = await engine.call("swarm/IpamDriver.RequestAddress", PoolID=pool)
    ip = found["Address"].partition("/")[0]
    components = engine.agent.components
    sync = engine.plugin._require_drivers().sync
    virtual = frozenset({("web", NETWORK)})
    for _ in range(3):
        held = SwarmHoldings(frozenset({ip}), virtual)
        sync._warn_of_virtual_ips(held)
        await sync._sweep({NETWORK}, set(), held)
    assert len(components.ipam.reservations.all()) == 1
    assert caplog.text.count("docker service update --endpoint-mode dnsrr web") == 1

    for _ in range(2):
        await sync._sweep({NETWORK}, set(), SwarmHoldings(frozenset(), frozenset()))
    assert components.ipam.reservations.all() == []
    for _ in range(2):
        await sync._sweep(set(), set(), None)  # no manager any longer: the network is not its own
    assert blue(engine) is not None


def test_holdings_are_those_of_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of tasks and virtual IPs; another host knows none."""
    answers: dict[str, Any] = {
        "/info": {"Swarm": {"ControlAvailable": True}},
        "/tasks": [{"NetworksAttachments": [{"Addresses": ["10.77.0.5/16"]}]}, {}],
        "/services": [
            {
                "Spec": {"Name": "web"},
                "Endpoint": {"VirtualIPs": [{"NetworkID": NETWORK, "Addr": "10.77.0.6/16"}]},
            },
            {"Spec": {"Name": "db"}},
        ],
    }
    monkeypatch.setattr(swarm_holdings, "query_docker", answers.get)

    assert swarm_holdings.swarm_holdings() == SwarmHoldings(
        frozenset({"10.77.0.5", "10.77.0.6"}), frozenset({("web", NETWORK)})
    )
    answers["/info"] = {"Swarm": {"ControlAvailable": False}}
    assert swarm_holdings.swarm_holdings() is None


@pytest.mark.parametrize(
    ("name", "aliases"), [("/web.1.abc", ("www", "web")), ("/other", ("www",))]
)
def test_a_service_is_an_alias_of_its_tasks(name: str, aliases: tuple[str, ...]) -> None:
    """By Docker's labels, where the container's name shows that they are no image's."""
    labels = {
        "com.docker.swarm.service.name": "web",
        "com.docker.swarm.task.name": "web.1.abc",
    }
    container = {"Name": name, "Config": {"Labels": labels}}

    assert container_names.aliases_of(container, {"Aliases": ["www"]}) == aliases
