"""network create, ls, inspect, rm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli.options.subnets import subnets
from overlay.errors import UsageError

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

BLUE: dict[str, Any] = {
    "schema": "overlayd.network-create/v1",
    "name": "blue",
    "vni": 9000001,
    "subnets": [
        {"subnet": "10.32.0.0/16", "gateway": "10.32.0.1", "gateway_mac": "06:00:00:00:00:01"}
    ],
    "internal": False,
    "labels": {"team": "a"},
    "creator": "vm1",
    "endpoints": 1,
    "hosts": ["vm1", "vm2"],
    "here": True,
    "mtu": 1450,
    "driver": "overlay",
    "parent": None,
}


def test_create_sends_all_and_prints_one_line(overlayd: Run, agent: FakeAgent) -> None:
    """Every option reaches the agent, and the output is the new network."""
    agent.answer("POST /v1/networks", BLUE | {"created": True})
    outcome = overlayd(
        "network", "create", "blue", "--subnet", "10.32.0.0/16", "--subnet", "fd32::/64",
        "--vni", "77", "--internal", "--label", "a=b=c", "--force", "--isolate-subnets",
        "--no-port-security",
    )  # fmt: skip

    assert outcome.out == "blue  vni 9000001  10.32.0.0/16  gateway 10.32.0.1\n"
    assert agent.asked[-1].body == {
        "name": "blue",
        "subnets": [
            {"subnet": "10.32.0.0/16", "gateway": None},
            {"subnet": "fd32::/64", "gateway": None},
        ],
        "vni": 77,
        "internal": True,
        "labels": {"a": "b=c"},
        "port_security": False,
        "any_name": False,
        "force": True,
        "isolate_subnets": True,
        "driver": "overlay",
        "parent": None,
    }


def test_without_a_subnet_the_agent_chooses(overlayd: Run, agent: FakeAgent) -> None:
    """Without --subnet, the request has an empty list."""
    agent.answer("POST /v1/networks", BLUE)
    overlayd("network", "create", "blue")

    assert agent.asked[-1].body["subnets"] == []


def test_a_gateway_goes_to_the_subnet_that_contains_it() -> None:
    """The order of the options does not matter."""
    assert subnets(["10.1.0.0/24", "fd00::/64"], ["fd00::1", "10.1.0.254"]) == [
        {"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"},
        {"subnet": "fd00::/64", "gateway": "fd00::1"},
    ]


@pytest.mark.parametrize(
    ("gateways", "said"),
    [
        (["10.9.0.1"], "in none of the subnets"),
        (["10.1.0.1", "10.1.0.2"], "two gateways"),
        (["x"], "not an IP address"),
    ],
)
def test_a_gateway_outside_all_subnets_is_a_usage_error(gateways: list[str], said: str) -> None:
    """The error is found before a request is sent."""
    with pytest.raises(UsageError, match=said):
        subnets(["10.1.0.0/24"], gateways)


def test_a_label_without_a_value_is_a_usage_error(overlayd: Run) -> None:
    """A label must be KEY=VALUE."""
    outcome = overlayd("network", "create", "blue", "--label", "red")

    assert outcome.code == 2
    assert "'red' is not KEY=VALUE" in outcome.err


def test_ls_is_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """Each network has a line."""
    agent.answer("GET /v1/networks", {"schema": "overlayd.network-ls/v1", "networks": [BLUE]})

    assert overlayd("network", "ls").out.splitlines() == [
        "NAME  DRIVER   VNI      SUBNETS       ENDPOINTS  HOSTS",
        "blue  overlay  9000001  10.32.0.0/16  1          vm1 vm2",
    ]


def test_an_empty_list_prints_a_note_on_stderr(overlayd: Run, agent: FakeAgent) -> None:
    """Stdout is empty, so scripts find no network."""
    agent.answer("GET /v1/networks", {"schema": "overlayd.network-ls/v1", "networks": []})
    outcome = overlayd("network", "ls")

    assert (outcome.code, outcome.out) == (0, "")
    assert "network create" in outcome.err


def test_inspect_shows_the_network_and_its_endpoints(overlayd: Run, agent: FakeAgent) -> None:
    """Properties come first, then endpoints; --json prints the agent's answer."""
    web = {
        "name": "web", "ips": ["10.32.0.2"], "mac": "02:00:00:00:00:02", "node": "vm1",
        "node_state": "alive",
    }  # fmt: skip
    detail = BLUE | {
        "endpoint_list": [web],
        "participants": ["vm1", "vm2"],
        "grants": [{"node": "vm1", "addresses": 65280}, {"node": "vm2", "addresses": 256}],
        "mtu_why": "eth1 carries 1500 bytes, VXLAN takes 50",
        "exposed": False,
        "exposed_why": "nothing on this host is attached to it",
        "host_ends": [{"node": "vm2", "ips": ["10.32.1.255"]}],
    }
    agent.answer("GET /v1/networks/blue", detail)

    assert overlayd("network", "inspect", "blue").out.splitlines() == [
        "Network    blue",
        "Driver     overlay",
        "VNI        9000001",
        "Subnets    10.32.0.0/16  gateway 10.32.0.1",
        "MTU        1450  eth1 carries 1500 bytes, VXLAN takes 50",
        "Internal   no",
        "Encrypted  no",
        "Default    new connections are allowed",
        "Isolation  none",
        "Routers    -",
        "Exposed    not here (nothing on this host is attached to it)",
        "           vm2 10.32.1.255",
        "Labels     team=a",
        "Creator    vm1",
        "Hosts      vm1 vm2",
        "Addresses  65280 owned by vm1",
        "           256 owned by vm2",
        "",
        "NAME  ADDRESS    MAC                NODE  STATE",
        "web   10.32.0.2  02:00:00:00:00:02  vm1   alive",
    ]
    assert json.loads(overlayd("network", "inspect", "blue", "--json").out) == detail


def test_unknown_endpoints_are_not_shown_as_none(overlayd: Run, agent: FakeAgent) -> None:
    """A host without a container on a network does not hold the records of its endpoints."""
    unknown = BLUE | {"endpoints": None, "endpoint_list": []}
    agent.answer("GET /v1/networks/blue", unknown)
    agent.answer("GET /v1/networks", {"networks": [unknown]})

    last = overlayd("network", "inspect", "blue").out.splitlines()[-1]
    assert last == "Endpoints  not known here: this host does not hold their records"
    row = overlayd("network", "ls", "--no-header").out.split()
    assert row == ["blue", "overlay", "9000001", "10.32.0.0/16", "-", "vm1", "vm2"]


def test_names_are_quoted_in_paths(overlayd: Run, agent: FakeAgent) -> None:
    """A name with a slash is sent as one path segment, and is not found."""
    outcome = overlayd("network", "inspect", "a/../b c")

    assert outcome.code == 5
    assert agent.asked[-1].line == "GET /v1/networks/a%2F..%2Fb%20c"


@pytest.mark.parametrize(("noun", "path"), [("network", "networks"), ("container", "containers")])
def test_rm_removes_all_that_it_can(overlayd: Run, agent: FakeAgent, noun: str, path: str) -> None:
    """It reports each object that it did not remove, and has the first error's exit code."""
    for name in "ac":
        agent.answer(f"DELETE /v1/{path}/{name}", {"removed": [name], "failed": []})
    agent.fail(f"DELETE /v1/{path}/b", "conflict", 409, what="it is in use", hint="detach it")
    outcome = overlayd(noun, "rm", "a", "b", "c", "nope", "a")

    assert outcome.code == 6
    assert outcome.err.splitlines()[:3] == ["removed a", "removed c", "error: b: it is in use"]
    assert [asked.line[-1] for asked in agent.asked] == ["a", "b", "c", "e"]
    shown = json.loads(overlayd(noun, "rm", "a", "b", "c", "--json").out)
    assert shown["schema"] == f"overlayd.{noun}-rm/v1"
    assert shown["removed"] == ["a", "c"]
    assert [(each["name"], each["error"]["what"]) for each in shown["failed"]] == [
        ("b", "it is in use")
    ]


def test_rm_of_one_network_prints_its_error(overlayd: Run, agent: FakeAgent) -> None:
    """One object fails with its own error, as every other verb."""
    agent.fail("DELETE /v1/networks/b", "conflict", 409, what="network b is in use")
    outcome = overlayd("network", "rm", "b", "--json")

    assert (outcome.code, json.loads(outcome.out)["error"]["what"]) == (6, "network b is in use")


def test_rm_stops_without_an_answer(overlayd: Run, agent: FakeAgent) -> None:
    """Those that were not tried are reported as not removed."""
    agent.answer("DELETE /v1/networks/a", {"removed": ["a"], "failed": []})
    agent.last = "DELETE /v1/networks/a"
    outcome = overlayd("network", "rm", "a", "b", "c", "--json")

    assert outcome.code == 3
    assert [each["name"] for each in json.loads(outcome.out)["failed"]] == ["b", "c"]


def test_per_subnet_options_go_to_their_subnets() -> None:
    """The block size applies to subnets that are larger than a block."""
    found = subnets(["10.1.0.0/16", "fd00::/64"], [], ["fd00::/80"], {"nas": "10.1.0.9"}, 24)

    assert found == [
        {"subnet": "10.1.0.0/16", "gateway": None, "auxiliary": {"nas": "10.1.0.9"},
         "block_length": 24},
        {"subnet": "fd00::/64", "gateway": None, "ip_range": "fd00::/80"},
    ]  # fmt: skip


def test_options_that_match_no_subnet_are_usage_errors() -> None:
    """An option fails without a subnet, outside of all, or larger than each."""
    with pytest.raises(UsageError, match="needs a subnet"):
        subnets([], [], ["10.1.0.0/24"])
    with pytest.raises(UsageError, match="in none of the subnets"):
        subnets(["10.1.0.0/24"], [], [], {"nas": "10.2.0.9"})
    with pytest.raises(UsageError, match="two ranges"):
        subnets(["10.1.0.0/24"], [], ["10.1.0.0/26", "10.1.0.64/26"])
    with pytest.raises(UsageError, match="no subnet is large enough"):
        subnets(["10.1.0.0/24"], [], block_size=20)


def test_create_warns_about_overlapping_subnets(overlayd: Run, agent: FakeAgent) -> None:
    """The network is created all the same; --ipv6 is sent on request only."""
    overlap = "10.32.0.0/16 overlaps 10.32.4.0/24 of network red"
    agent.answer("POST /v1/networks", BLUE | {"created": True, "overlaps": [overlap]})
    outcome = overlayd("network", "create", "blue", "--ipv6")

    assert outcome.code == 0
    assert outcome.err.splitlines()[0] == f"warning: {overlap}"
    assert agent.asked[-1].body["ipv6"] is True
    overlayd("network", "create", "blue")
    assert "ipv6" not in agent.asked[-1].body
