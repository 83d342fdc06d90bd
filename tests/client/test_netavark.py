"""The netavark plugin, by what Podman 5.4 with netavark 1.14 was seen to send."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from overlay import __version__
from overlay.client.netavark import run
from overlay.client.plugin_client import PluginClient

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent

Call = Callable[..., tuple[int, Any]]
ID = "354e0d8806f20f1c755233ae006bcc81d3bcb7e5745b42e9e2be13ad46341b72"
NETNS = "/run/netns/netns-6884f209-9e28-dbf6-715b-98b89b12d475"
CREATE = {
    "name": "blue", "id": "b481951125f9", "driver": "overlayd", "created": "0001-01-01T00:00:00Z",
    "subnets": [{"subnet": "10.79.0.0/16", "gateway": "10.79.0.1"}], "ipv6_enabled": False,
    "internal": False, "dns_enabled": True, "labels": {"a": "b"},
}  # fmt: skip
SETUP = {
    "container_id": ID, "container_name": "p1",
    "port_mappings": [{"container_port": 80, "host_ip": "", "host_port": 8080, "protocol": "tcp",
                       "range": 1}],
    "network": {"dns_enabled": False, "driver": "overlayd", "id": "b481951125f9",
                "internal": False, "ipv6_enabled": False, "name": "podblue",
                "network_interface": None, "options": {"overlayd.network": "blue"},
                "ipam_options": {"driver": "none"}, "routes": None, "network_dns_servers": None,
                "subnets": [{"gateway": "10.79.0.1", "lease_range": None,
                             "subnet": "10.79.0.0/16"}]},
    "network_options": {"aliases": ["www", "354e0d8806f2"], "interface_name": "eth0",
                        "static_ips": ["10.79.0.9"], "static_mac": "02:42:00:00:00:77",
                        "options": {"k": "v"}},
}  # fmt: skip
NETWORK = {
    "name": "blue", "internal": False, "encrypted": False,
    "subnets": [{"subnet": "10.79.0.0/16", "gateway": "10.79.0.1", "ip_range": None}],
}  # fmt: skip
ENDPOINT = {
    "ifname": "eth0", "mac": "02:42:00:00:00:77", "dns_servers": ["10.79.0.1"],
    "dns_search": ["overlay"], "default_routes": ["10.79.0.1"],
    "ips": [{"address": "10.79.0.9/16", "gateway": "10.79.0.1"}],
    "unconfirmed": [], "unreachable": [], "unanswered": [], "degraded": [],
}  # fmt: skip


@pytest.fixture
def call(agent: FakeAgent) -> Call:
    """Return a call of the plugin beside an agent that knows the network blue."""
    agent.answer("GET /v1/networks/blue", NETWORK)
    agent.answer("POST /v1/plugin/attach", ENDPOINT)
    agent.answer("POST /v1/plugin/detach", {"detached": []})

    def called(*words: str, body: Any = None) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return run(words, lambda: raw, PluginClient(str(agent.run_dir)))

    return called


def test_info_has_the_versions(call: Call) -> None:
    """Of the plugin, and of netavark's interface."""
    assert call("info") == (0, {"version": __version__, "api_version": "1.0.0"})


def test_create_binds_to_the_clusters_network(call: Call, agent: FakeAgent) -> None:
    """With its subnets, and without Podman's own addresses; the rest is as it was."""
    asked = {key: value for key, value in CREATE.items() if key != "subnets"}
    code, found = call("create", body=asked)

    assert code == 0
    assert found == {
        **asked, "subnets": [{"subnet": "10.79.0.0/16", "gateway": "10.79.0.1"}],
        "ipam_options": {"driver": "none"},
    }  # fmt: skip
    assert [each.line for each in agent.asked] == ["GET /v1/networks/blue"]


def test_create_makes_a_network_that_is_new(call: Call, agent: FakeAgent) -> None:
    """With the name of the option, and Podman's subnets."""
    agent.answer("POST /v1/networks", NETWORK | {"name": "green"})
    code, _ = call("create", body=CREATE | {"options": {"overlayd.network": "green"}})

    assert code == 0
    assert agent.asked[-1].body == {
        "name": "green", "internal": False, "ipv6": False, "encrypted": False,
        "subnets": [{"subnet": "10.79.0.0/16", "gateway": "10.79.0.1"}],
    }  # fmt: skip


def test_create_can_ask_for_encryption(call: Call, agent: FakeAgent) -> None:
    """As of Docker's overlay networks; one that is encrypted already is bound."""
    agent.answer("POST /v1/networks", NETWORK | {"name": "green", "encrypted": True})
    options = {"overlayd.network": "green", "encrypted": "true"}
    code, _ = call("create", body=CREATE | {"options": options})

    assert code == 0
    assert agent.asked[-1].body["encrypted"] is True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subnets": [{"subnet": "10.80.0.0/16"}]}, "network blue exists with other subnets"),
        ({"subnets": [{"subnet": "10.79.0.0/16", "gateway": "10.79.0.2"}]}, "other subnets"),
        ({"internal": True}, "is not internal"),
        ({"options": {"encrypted": "true"}}, "network blue exists and is not encrypted"),
        ({"options": {"encrypted": "false"}}, None),
        ({"options": {"encrypted": "maybe"}}, "is neither true nor false"),
        ({"options": {"mtu": "1300"}}, "unknown option mtu"),
        ({"subnets": [{"subnet": "10.79.0.0/16", "lease_range": {}, "x": 1}]}, None),
        ({"subnets": [{"subnet": "10.79.0.0/16", "lease_range": {"start_ip": "1"}}]}, "--ip-range"),
    ],
)
def test_create_refuses_what_the_cluster_has_not(
    call: Call, change: dict[str, Any], said: str | None
) -> None:
    """The error is on the standard output, where netavark reads it, with what to do."""
    code, answer = call("create", body=CREATE | change)

    assert code == (0 if said is None else 1)
    assert said is None or said in answer["error"]


def test_setup_attaches_the_container(call: Call, agent: FakeAgent) -> None:
    """Podman's wishes reach the agent, and the result has netavark's shape."""
    code, found = call("setup", NETNS, body=SETUP)

    assert code == 0
    asked = agent.asked[0].body
    assert len(asked.pop("runtime_pids")) == 1
    assert asked == {
        "plugin": "netavark", "scope": "podblue", "container_id": ID, "ifname": "eth0",
        "target": NETNS, "network": "blue", "name": "p1", "ips": ["10.79.0.9"],
        "mac": "02:42:00:00:00:77", "aliases": ["www", "354e0d8806f2"],
        "publish": [{"ports": ["8080-8080:80-80/tcp"], "host_ip": None}],
    }  # fmt: skip
    assert found == {
        "dns_search_domains": ["overlay"], "dns_server_ips": ["10.79.0.1"],
        "interfaces": {"eth0": {"mac_address": "02:42:00:00:00:77",
                                "subnets": [{"ipnet": "10.79.0.9/16", "gateway": "10.79.0.1"}]}},
    }  # fmt: skip


def test_a_container_without_wishes_gets_all(call: Call, agent: FakeAgent) -> None:
    """Null fields are none."""
    wishes = {"aliases": None, "interface_name": "eth0", "static_ips": None, "static_mac": None}
    call("setup", NETNS, body=SETUP | {"port_mappings": None, "network_options": wishes})

    asked = agent.asked[0].body
    assert (asked["ips"], asked["mac"], asked["aliases"], asked["publish"]) == ([], None, [], [])


def test_teardown_detaches_by_the_same_key(call: Call, agent: FakeAgent) -> None:
    """It writes nothing."""
    assert call("teardown", NETNS, body=SETUP) == (0, None)
    assert agent.asked[0].body == {
        "plugin": "netavark", "scope": "podblue", "container_id": ID, "ifname": "eth0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "body"),
    [((), {}), (("up",), {}), (("setup",), SETUP), (("create",), b"{"), (("create",), []),
     (("create",), {}), (("setup", NETNS), {}), (("setup", NETNS), SETUP | {"port_mappings": 7}),
     (("teardown", NETNS), {"network": None})],
)  # fmt: skip
def test_a_call_that_is_not_understood_is_an_error(
    call: Call, agent: FakeAgent, words: tuple[str, ...], body: Any
) -> None:
    """In netavark's form, without a request to the agent."""
    code, answer = call(*words, body=body)

    assert code == 1
    assert set(answer) == {"error"}
    assert agent.asked == []
