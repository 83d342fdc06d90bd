"""The networks that Docker creates, and the addresses that it requests on them."""

from __future__ import annotations

import errno

import pytest
from overlay import limits
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec
from overlay.core.dataplane.network_drivers import is_encrypted
from overlay.model import Network
from tests.agent.plugins.docker.engine import NETWORK, OTHER, Engine


async def test_a_named_network_is_created(engine: Engine) -> None:
    """The cluster gets a network with the subnet that Docker's user chose."""
    await engine.network()

    found = engine.agent.components.directory.network("blue")
    assert [str(each) for each in found.subnets] == ["10.77.0.0/16"]
    await engine.network()  # a request that Docker repeats


async def test_an_existing_network_is_bound_by_subnet(engine: Engine) -> None:
    """Docker tells no name, so the subnet finds the network."""
    components = engine.agent.components
    spec = NetworkSpec("red", [SubnetSpec("10.78.0.0/16")])
    red, _ = await components.networks.create(spec)

    await engine.network("10.78.0.0/16", encrypted="false")
    await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
    assert components.directory.network("red") == red


async def test_dockers_network_goes_with_its_last_binding(engine: Engine) -> None:
    """Docker removes the network that it created; a second removal is not an error."""
    await engine.network()

    for _ in range(2):
        assert await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK) == {}

    assert engine.agent.components.directory.find_network("blue") is None


async def test_an_interrupted_removal_is_finished_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker repeats a call that got no answer; the cluster's network is still bound then."""
    await engine.network()

    async def fail(_name: str) -> Network:
        raise OSError(errno.EIO, "interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(engine.agent.components.networks, "remove", fail)
        assert "Err" in await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
    assert await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK) == {}

    assert engine.agent.components.directory.find_network("blue") is None


@pytest.mark.parametrize(
    ("data", "options", "told"),
    [
        ({"AddressSpace": "LocalDefault", "Pool": "10.77.0.0/16"}, {}, "--ipam-driver overlayd"),
        ({"AddressSpace": "overlayd", "Pool": "10.99.0.0/16"}, {}, "has no pool"),
        ({}, {"overlayd.colour": "x"}, "unknown option overlayd.colour"),
        ({}, {"com.example": "x"}, "unknown option com.example"),
        ({}, {"com.docker.network.driver.mtu": "1300"}, "overlayd network set NAME --mtu"),
        ({}, {"encrypted": "maybe"}, "is neither true nor false"),
    ],
)
async def test_networks_that_cannot_be_are_refused(
    engine: Engine, data: dict[str, str], options: dict[str, str], told: str
) -> None:
    """Nothing is left of a network that is refused."""
    answer = await engine.call(
        "NetworkDriver.CreateNetwork",
        NetworkID=NETWORK,
        Options={"com.docker.network.generic": options},
        IPv4Data=[data] if data else [],
    )

    assert told in answer["Err"]
    later = await engine.about("CreateEndpoint")
    assert "has no Docker network" in later["Err"]


@pytest.mark.parametrize("asked", ["", "true"])
async def test_an_encrypted_network_is_never_in_clear(engine: Engine, asked: str) -> None:
    """One is made encrypted; one that exists must be."""
    components = engine.agent.components
    options = {"overlayd.network": "red", "encrypted": asked}
    clear, _ = await components.networks.create(NetworkSpec("red", [SubnetSpec("10.78.0.0/16")]))
    pool = await engine.call(
        "IpamDriver.RequestPool", AddressSpace="overlayd", Pool="10.78.0.0/16", SubPool=""
    )
    answer = await engine.call(
        "NetworkDriver.CreateNetwork",
        NetworkID=NETWORK,
        Options={"com.docker.network.generic": options},
        IPv4Data=[{"AddressSpace": "overlayd", "Pool": pool["Pool"], "Gateway": ""}],
    )
    assert "network red exists and is not encrypted" in answer["Err"]
    await components.networks.remove(clear.name)
    await engine.call("IpamDriver.ReleasePool", PoolID=pool["PoolID"])

    await engine.network("10.78.0.0/16", **options)
    assert is_encrypted(components.directory.network("red"))


async def test_another_subnet_of_a_known_name_is_refused(engine: Engine) -> None:
    """A name stands for one network of the cluster."""
    await engine.agent.components.networks.create(NetworkSpec("blue", [SubnetSpec("10.78.0.0/16")]))
    pool = await engine.call("IpamDriver.RequestPool", Pool="10.77.0.0/16")

    answer = await engine.call(
        "NetworkDriver.CreateNetwork",
        NetworkID=NETWORK,
        Options={"com.docker.network.generic": {"overlayd.network": "blue"}},
        IPv4Data=[{"AddressSpace": "overlayd", "Pool": pool["Pool"]}],
    )

    assert "exists with other subnets" in answer["Err"]
    assert "10.78.0.0/16" in answer["Err"]


async def test_pools_without_a_network_are_bounded(engine: Engine) -> None:
    """Docker asks without end where it rejects each subnet; the plugin ends that."""
    answers = [
        await engine.call("IpamDriver.RequestPool")
        for _ in range(limits.DOCKER_POOLS_UNBOUND_MAX + 1)
    ]

    assert len({each["Pool"] for each in answers[:-1]}) == limits.DOCKER_POOLS_UNBOUND_MAX
    assert "pools without a network" in answers[-1]["Error"]


# --- addresses ------------------------------------------------------------------------------


async def test_the_gateway_is_not_allocated(engine: Engine) -> None:
    """Docker asks for the gateway's address, which no container gets."""
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    pool = await engine.call("IpamDriver.RequestPool", Pool="10.77.0.0/16")

    answer = await engine.call("IpamDriver.RequestAddress", PoolID=pool["PoolID"], Options=gateway)

    assert answer["Address"] == "10.77.0.1/16"
    assert engine.agent.components.ipam.reservations.all() == []


async def test_addresses_are_reserved_until_released(engine: Engine) -> None:
    """Two requests get two addresses; a wanted one is given once."""
    pool = await engine.network()
    first = await engine.endpoint(pool)
    second = await engine.endpoint(pool, OTHER)
    assert first != second

    wanted = first.partition("/")[0]
    taken = await engine.call("IpamDriver.RequestAddress", PoolID=pool, Address=wanted)
    assert "is in use" in taken["Error"]
    outside = await engine.call("IpamDriver.RequestAddress", PoolID=pool, Address="10.1.0.9")
    assert "is not an address of network blue" in outside["Error"]
    reserved = engine.agent.components.gossip.state
    assert len(reserved.all("reservation")) == 2


async def test_a_restarted_container_gets_its_address_again(engine: Engine) -> None:
    """Docker releases the address and asks for any: it is the one released last."""
    pool = await engine.network()
    before = await engine.endpoint(pool)
    for name in ("Leave", "DeleteEndpoint"):
        await engine.about(name)
    for _ in range(2):
        address = before.partition("/")[0]
        assert await engine.call("IpamDriver.ReleaseAddress", PoolID=pool, Address=address) == {}

    assert await engine.endpoint(pool, OTHER) == before
