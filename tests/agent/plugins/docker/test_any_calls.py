"""Any calls in any order: no defect, and nothing is left."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from overlay import limits
from tests.agent.plugins.docker.engine import CALLS, ENDPOINT, NETWORK, OTHER, PORT_MAP, Engine

ODD: tuple[Any, ...] = (
    None, "", "x", -1, 7, [], {}, [7], {"overlayd.network": 7}, "10.77.0.9/16", "fd77::9/64",
    "10.77.0.0/16", "10.77.0.0/33", "02:00:00:00:00:01", "blue", "b" * 300, True,
)  # fmt: skip
LIKELY: dict[str, tuple[Any, ...]] = {
    "NetworkID": (NETWORK, OTHER),
    "EndpointID": (ENDPOINT, OTHER),
    "SandboxKey": ("/run/docker/netns/1",),
    "AddressSpace": ("overlayd", "LocalDefault"),
    "Pool": ("", "10.77.0.0/16", "10.78.0.0/24", "fd77::/64"),
    "SubPool": ("", "10.77.1.0/24"),
    "V6": (False, True),
    "Address": ("", "10.77.0.2", "10.77.0.9"),
    "Interface": ({"Address": "10.77.0.9/16"}, {"Address": "10.77.0.9/16", "MacAddress": "z"}),
    "IPv4Data": (
        [{"AddressSpace": "overlayd", "Pool": "10.77.0.0/16", "Gateway": "10.77.0.1/16"}],
    ),
    "Options": (
        {"com.docker.network.generic": {"overlayd.network": "blue"}},
        {"RequestAddressType": "com.docker.network.gateway"},
        {PORT_MAP: [{"Proto": 6, "Port": 80, "HostPort": 8080}]},
    ),
}


@pytest.mark.parametrize("seed", range(3))
async def test_any_calls_in_any_order_leave_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Likely and odd values: no defect, and the removals of all that was named remove all."""
    monkeypatch.setattr(limits, "DOCKER_NAME_WAIT_S", 0.01)
    rng = random.Random(seed)
    pools: list[str] = ["overlayd-0000000000000000"]
    for _ in range(400):
        fields = {
            key: rng.choice(ODD) if rng.random() < 0.05 else rng.choice(values)
            for key, values in [*LIKELY.items(), ("PoolID", tuple(pools))]
            if rng.random() < 0.9
        }
        status, answer = await engine.post(rng.choice(CALLS), json.dumps(fields).encode())
        assert status in (200, 400), answer
        assert "defect" not in str(answer.get("Err")), (fields, answer)
        pools += [str(answer["PoolID"])] if "PoolID" in answer else []

    for endpoint in (ENDPOINT, OTHER):
        for network in (NETWORK, OTHER):
            ids = {"NetworkID": network, "EndpointID": endpoint}
            assert await engine.call("NetworkDriver.DeleteEndpoint", **ids) == {}
    for network in (NETWORK, OTHER):
        assert await engine.call("NetworkDriver.DeleteNetwork", NetworkID=network) == {}
    for pool in pools:
        assert await engine.call("IpamDriver.ReleasePool", PoolID=pool) == {}
    components = engine.agent.components
    assert components.runtime_endpoints.attached == {}
    assert components.exposure.published_ports.ports == {}
    for kind in ("docker-pool", "docker-network", "docker-endpoint"):
        assert components.gossip.state.all(kind) == {}
