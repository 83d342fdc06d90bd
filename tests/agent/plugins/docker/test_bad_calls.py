"""Docker's calls that cannot be obeyed: each is answered in words, and changes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from overlay.agent.state import documents
from tests.agent.plugins.docker.engine import CALLS, ENDPOINT, NETWORK, OTHER

if TYPE_CHECKING:
    from tests.agent.plugins.docker.engine import Engine

POOL = "the pool of network blue"  # its id is known once it was requested
BLUE = {"com.docker.network.generic": {"overlayd.network": "blue"}}
SWARMS = {"com.docker.network.generic": {"overlayd.network": "green"}}


class BadCall(NamedTuple):
    """A call to a host with network blue and one endpoint, and parts of its error."""

    call: str
    fields: dict[str, Any]
    told: tuple[str, ...]


def _data(pool: str, space: str = "overlayd") -> dict[str, Any]:
    return {"IPv4Data": [{"AddressSpace": space, "Pool": pool, "Gateway": ""}]}


def _call(name: str, network: str = NETWORK, endpoint: str = ENDPOINT, **fields: Any) -> BadCall:
    ids = {"NetworkID": network, "EndpointID": endpoint, "SandboxKey": "/run/docker/netns/2"}
    return BadCall(f"NetworkDriver.{name}", {**ids, **fields}, ())


BAD: dict[str, BadCall] = {
    "an unknown network": _call("Join", network=OTHER)._replace(told=("Start the container",)),
    "an endpoint on an unknown network": _call(
        "CreateEndpoint", OTHER, OTHER, Interface={"Address": "10.77.0.9/16"}
    )._replace(told=("has no Docker network", "docker network")),
    "a taken address": BadCall(
        "IpamDriver.RequestAddress",
        {"PoolID": POOL, "Address": "10.77.0.9"},
        ("10.77.0.9 is in use", "another Docker container", "Choose another address"),
    ),
    "an address outside": BadCall(
        "IpamDriver.RequestAddress",
        {"PoolID": POOL, "Address": "10.99.0.1"},
        ("10.99.0.1", "10.77.0.0/16"),
    ),
    "the gateway's address": BadCall(
        "IpamDriver.RequestAddress", {"PoolID": POOL, "Address": "10.77.0.1"}, ("gateway",)
    ),
    "no address at all": BadCall(
        "IpamDriver.RequestAddress", {"PoolID": POOL, "Address": "ten"}, ("is not an IP address",)
    ),
    "an unknown pool": BadCall(
        "IpamDriver.RequestAddress",
        {"PoolID": "overlayd-0000000000000000"},
        ("docker network create",),
    ),
    "a pool that is no range": BadCall(
        "IpamDriver.RequestPool", {"AddressSpace": "overlayd", "Pool": "10.77.0.0/33"}, ("/33",)
    ),
    "a known name with another subnet": BadCall(
        "NetworkDriver.CreateNetwork",
        {"NetworkID": OTHER, "Options": BLUE, **_data("10.78.0.0/24")},
        ("10.78.0.0/24", "blue"),
    ),
    "a network without a pool": BadCall(
        "NetworkDriver.CreateNetwork",
        {"NetworkID": OTHER, "Options": SWARMS, **_data("10.79.0.0/24")},
        ("has no pool 10.79.0.0/24", "Docker did not request it", "docker network create"),
    ),
    "addresses of Docker's own": BadCall(
        "NetworkDriver.CreateNetwork",
        {"NetworkID": OTHER, "Options": SWARMS, **_data("10.78.0.0/24", "LocalDefault")},
        ("do not come from overlayd", "the same on each host", "--ipam-driver overlayd"),
    ),
    "an unknown option": BadCall(
        "NetworkDriver.CreateNetwork",
        {
            "NetworkID": OTHER,
            "Options": {"com.docker.network.generic": {"overlayd.speed": "9"}},
            **_data("10.78.0.0/24"),
        },
        ("unknown option overlayd.speed", "-o overlayd.network=NAME"),
    ),
    "an unknown endpoint": _call("Join", endpoint=OTHER)._replace(
        told=("has no Docker endpoint", "it was deleted", "Start the container again")
    ),
    "ports before an endpoint": _call(
        "ProgramExternalConnectivity", endpoint=OTHER, Options={}
    )._replace(told=("has no Docker endpoint",)),
    "an endpoint without an address": _call(
        "CreateEndpoint", endpoint=OTHER, Interface={}
    )._replace(told=("names no address", "another IPAM driver")),
    "an invalid MAC": _call(
        "CreateEndpoint", endpoint=OTHER, Interface={"Address": "10.77.0.8/16", "MacAddress": "z"}
    )._replace(told=("is not a MAC address",)),
    "a look at an unknown endpoint": _call("EndpointOperInfo", endpoint=OTHER)._replace(
        told=("has no Docker endpoint",)
    ),
}
HARMLESS = {  # in a state in which there is nothing to do
    "a removal twice": ("DeleteEndpoint", "DeleteEndpoint"),
    "a leave twice": ("Leave", "Leave"),
    "a leave after the end": ("DeleteEndpoint", "Leave"),
    "ports of what is gone": ("DeleteEndpoint", "RevokeExternalConnectivity"),
    "a join twice": ("Join", "Join"),
}


def state_of(engine: Engine) -> dict[str, Any]:
    """Return everything that a call could have left behind."""
    components = engine.agent.components
    state = components.gossip.state
    kinds = ("docker-pool", "docker-network", "docker-endpoint", documents.RESERVATIONS.kind)
    return {
        **{kind: dict(state.all(kind)) for kind in kinds},
        "attached": dict(components.runtime_endpoints.attached),
        "published": dict(components.exposure.published_ports.ports),
        "networks": sorted(each.name for each in components.directory.networks()),
    }


async def prepared(engine: Engine) -> str:
    """Make network blue and an endpoint at 10.77.0.9; return the pool."""
    pool = await engine.network()
    await engine.endpoint(pool, Address="10.77.0.9")
    return pool


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_call_changes_nothing(engine: Engine, name: str) -> None:
    """The error has what happened and what to do, under the key that Docker reads."""
    pool = await prepared(engine)
    bad = BAD[name]
    wanted = {"AddressSpace": "overlayd", "Pool": "10.78.0.0/24", "SubPool": ""}
    await engine.call("IpamDriver.RequestPool", **wanted)
    before = state_of(engine)
    fields = {key: pool if value == POOL else value for key, value in bad.fields.items()}
    for _ in range(2):  # Docker repeats a request whose answer it has not seen
        _, answer = await engine.post(bad.call, json.dumps(fields).encode())
        assert answer["Err"] == answer["Error"]
        assert answer["Err"].startswith("overlayd: ")
        assert "defect" not in answer["Err"]
        for part in bad.told:
            assert part in answer["Err"], answer

    assert state_of(engine) == before


@pytest.mark.parametrize("name", HARMLESS)
async def test_a_repeated_call_is_no_error(engine: Engine, name: str) -> None:
    """Twice is once, also after the container is gone; removals leave nothing."""
    pool = await prepared(engine)
    first, second = HARMLESS[name]
    answers = [await engine.about(call) for call in (first, second)]
    assert all("Err" not in answer for answer in answers)
    after = state_of(engine)
    assert "Err" not in await engine.about(second)
    assert state_of(engine) == after

    await engine.about("DeleteEndpoint")
    release = {"PoolID": pool, "Address": "10.77.0.9"}
    await engine.call("IpamDriver.ReleaseAddress", **release)
    await engine.call("IpamDriver.ReleaseAddress", **release)
    await engine.call("NetworkDriver.DeleteNetwork", NetworkID=NETWORK)
    await engine.call("IpamDriver.ReleasePool", PoolID=pool)
    left = state_of(engine)
    assert not any(left[kind] for kind in left if kind != "networks")


async def test_fields_of_a_later_version_are_ignored(engine: Engine) -> None:
    """A later Docker sends more than is known today; its new methods do not exist."""
    pool = await prepared(engine)
    fields = {"PoolID": pool, "Address": "", "Lease": {"Seconds": 60}, "Version": "9.9"}
    assert "Address" in await engine.call("IpamDriver.RequestAddress", **fields)
    status, answer = await engine.post("IpamDriver.RenewLease", b"{}")
    assert (status, "no method" in answer["Err"]) == (404, True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = (
    "NetworkID", "EndpointID", "SandboxKey", "Options", "Interface", "IPv4Data", "IPv6Data",
    "PoolID", "Address", "AddressSpace", "Pool", "SubPool", "V6",
)  # fmt: skip
BODY = st.binary(max_size=64) | st.builds(
    lambda value: json.dumps(value).encode(),
    JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6),
)


@given(calls=st.lists(st.tuples(st.sampled_from(CALLS), BODY), min_size=1, max_size=12))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_no_body_is_a_defect(engine: Engine, calls: list[tuple[str, bytes]]) -> None:
    """Bytes, JSON of any shape, and known fields with any value are answered in words."""
    for call, body in calls:
        status, answer = await engine.post(call, body)
        assert status in (200, 400)
        assert "defect" not in str(answer.get("Err"))
