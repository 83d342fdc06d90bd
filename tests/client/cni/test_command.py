"""The CNI plugin, by the sentences of the specification (SPEC.md, version 1.1.0)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from overlay.client.cni.command import run
from overlay.client.plugin_client import PluginClient

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent

Call = Callable[..., tuple[int, Any]]
ID = "0123456789abcdef" * 4
CAPABLE = {
    "ips": ["10.32.5.5/16", "fd40::5/64"],
    "mac": "02:00:00:00:00:77",
    "aliases": {"blue": ["www"], "green": ["other"]},
    "portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
        {"HostPort": 5353, "ContainerPort": 53, "Protocol": "UDP", "HostIP": "192.0.2.1"},
        {"containerPort": 9000, "protocol": "tcp"},
    ],
    "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 1, "egressRate": 0, "egressBurst": 0},
}
ATTACHED = {
    "schema": "overlayd.plugin-attach/v1",
    "network": "blue", "name": "web", "target": "cni:web", "ifname": "eth0",
    "mac": "02:4f:0a:20:00:02", "mtu": 1450,
    "ips": [{"address": "10.32.0.2/16", "gateway": "10.32.0.1"},
            {"address": "fd40::2/64", "gateway": None}],
    "default_routes": ["10.32.0.1"], "dns_servers": ["10.32.0.1"], "dns_search": ["overlay"],
    "unconfirmed": [], "unreachable": [], "unanswered": [], "degraded": [],
}  # fmt: skip


@pytest.fixture
def netns(tmp_path: Path) -> str:
    """Return the path of a namespace, as far as the plugin looks at it."""
    (tmp_path / "netns").touch()
    return str(tmp_path / "netns")


@pytest.fixture
def call(agent: FakeAgent, netns: str) -> Call:
    """Return a call of the plugin, with what a runtime passes by default."""
    agent.answer("POST /v1/plugin/attach", ATTACHED)
    agent.answer("POST /v1/plugin/detach", {"detached": []})
    agent.answer("POST /v1/plugin/collect", {"detached": []})
    agent.answer("POST /v1/plugin/check", ATTACHED | {"problems": []})

    def called(
        command: str,
        fields: dict[str, Any] | bytes | None = None,
        environ: dict[str, str] | None = None,
        run_dir: Path = agent.run_dir,
    ) -> tuple[int, Any]:
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": ID,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
        } | (environ or {})
        config = {"cniVersion": "1.1.0", "name": "blue", "type": "overlayd"}
        raw = fields if isinstance(fields, bytes) else json.dumps(config | (fields or {})).encode()
        return run(variables, lambda: raw, PluginClient(str(run_dir)))

    return called


def only(agent: FakeAgent) -> Any:
    """Return the body of the one request that the agent got."""
    (asked,) = agent.asked
    return asked.body


# --- ADD --------------------------------------------------------------------------------


def test_add_attaches_the_container(call: Call, agent: FakeAgent, netns: str) -> None:
    """By its namespace, under the key of the specification: network, container, interface."""
    code, _ = call("ADD", {"network": "green"}, {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web"})

    assert code == 0
    assert only(agent) == {
        "plugin": "cni", "scope": "blue", "container_id": ID, "ifname": "eth0", "target": netns,
        "network": "green", "name": "web", "ips": [], "mac": None, "default_route": True,
        "aliases": [], "publish": [], "rate_in": None, "rate_out": None,
        "runtime_pids": [os.getppid()],
    }  # fmt: skip


def test_the_network_has_the_configurations_name(call: Call, agent: FakeAgent) -> None:
    """Unless the configuration names another one."""
    call("ADD")

    assert only(agent)["network"] == "blue"


@pytest.mark.parametrize(
    ("version", "ip_keys", "interface_keys"),
    [
        ("0.3.1", {"address", "interface", "gateway", "version"}, {"name", "mac", "sandbox"}),
        ("0.4.0", {"address", "interface", "gateway", "version"}, {"name", "mac", "sandbox"}),
        ("1.0.0", {"address", "interface", "gateway"}, {"name", "mac", "sandbox"}),
        ("1.1.0", {"address", "interface", "gateway"}, {"name", "mac", "sandbox", "mtu"}),
    ],
)
def test_the_result_has_the_versions_shape(
    call: Call, netns: str, version: str, ip_keys: set[str], interface_keys: set[str]
) -> None:
    """It has the fields of the version that the configuration has, and that version."""
    code, found = call("ADD", {"cniVersion": version})

    assert code == 0
    assert found["cniVersion"] == version
    (interface,) = found["interfaces"]
    assert set(interface) == interface_keys
    assert interface["sandbox"] == netns
    assert [ip["address"] for ip in found["ips"]] == ["10.32.0.2/16", "fd40::2/64"]
    assert set(found["ips"][0]) == ip_keys
    assert [ip["interface"] for ip in found["ips"]] == [0, 0]
    assert [ip.get("version") for ip in found["ips"]] == (
        ["4", "6"] if "version" in ip_keys else [None, None]
    )
    assert found["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}]
    assert found["dns"] == {"nameservers": ["10.32.0.1"], "search": ["overlay"]}


def test_capabilities_reach_the_agent(call: Call, agent: FakeAgent) -> None:
    """Those of Podman and containerd, which spell their keys differently."""
    call("ADD", {"runtimeConfig": CAPABLE})

    asked = only(agent)
    assert asked["ips"] == ["10.32.5.5", "fd40::5"]
    assert asked["mac"] == "02:00:00:00:00:77"
    assert asked["aliases"] == ["www"]
    assert asked["publish"] == [
        {"ports": ["8080:80/tcp"], "host_ip": None},
        {"ports": ["5353:53/udp"], "host_ip": "192.0.2.1"},
    ]
    assert (asked["rate_in"], asked["rate_out"]) == (1_000_000, None)


def test_options_of_the_port_are_keys_of_the_configuration(call: Call, agent: FakeAgent) -> None:
    """A runtime gives one container others, but cannot allow frames that are not IP."""
    fields = {"vlan": 10, "isolated": True, "priority": 5, "storm": 200, "allowNonIP": "llc"}
    assert call("ADD", fields)[0] == 0
    own = {"priority": "7", "vlan": "20-30", "allowNonIP": "all"}
    assert call("ADD", fields | {"args": {"cni": own}})[0] == 0
    assert call("ADD", {"args": {"cni": own}})[0] == 0
    sent = [asked.body for asked in agent.asked]
    names = ("vlan", "isolated", "priority", "storm", "allow_non_ip")
    assert [[each.get(name) for name in names] for each in sent] == [
        ["10", True, "5", 200, "llc"],
        ["20-30", True, "7", 200, "llc"],
        ["20-30", None, "7", None, None],
    ]


def test_addresses_come_from_args_as_well(call: Call, agent: FakeAgent) -> None:
    """From CNI_ARGS, where Podman 4.3 writes them, and from args by the convention."""
    call("ADD", {}, {"CNI_ARGS": "IP=10.32.0.9;MAC=02:00:00:00:00:09"})
    call("ADD", {"args": {"cni": {"ips": ["10.32.0.8"], "mac": "02:00:00:00:00:08"}}})

    assert [each.body["ips"] for each in agent.asked] == [["10.32.0.9"], ["10.32.0.8"]]
    assert [each.body["mac"][-2:] for each in agent.asked] == ["09", "08"]


def test_the_runtimes_resolver_settings_win(call: Call) -> None:
    """Those for the container, then those of the configuration, then the network's."""
    asked = {"dns": {"Servers": ["192.0.2.53"], "Searches": None, "Options": ["ndots:2"]}}
    _, by_runtime = call("ADD", {"runtimeConfig": asked})
    _, by_config = call("ADD", {"dns": {"nameservers": ["192.0.2.54"], "search": ["lan"]}})

    assert by_runtime["dns"] == {
        "nameservers": ["192.0.2.53"], "search": ["overlay"], "options": ["ndots:2"],
    }  # fmt: skip
    assert by_config["dns"] == {"nameservers": ["192.0.2.54"], "search": ["lan"]}


def test_a_result_extends_that_of_the_chain(call: Call, netns: str) -> None:
    """Results of earlier plugins stay, with indexes that are still right."""
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "sandbox": netns}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24"}],
        "dns": {"nameservers": ["192.0.2.53"], "domain": "lan"},
    }
    _, found = call("ADD", {"cniVersion": "1.0.0", "prevResult": before})

    assert [each["name"] for each in found["interfaces"]] == ["lo", "eth0"]
    assert [each["interface"] for each in found["ips"]] == [0, 1, 1]
    assert [each["dst"] for each in found["routes"]] == ["192.0.2.0/24", "0.0.0.0/0"]
    assert found["dns"] == {
        "nameservers": ["10.32.0.1", "192.0.2.53"], "search": ["overlay"], "domain": "lan",
    }  # fmt: skip


def test_an_ipam_plugin_is_refused_by_field(call: Call, agent: FakeAgent) -> None:
    """Code 2, with key and value of the field; its absence and emptiness are fine."""
    code, error = call("ADD", {"ipam": {"type": "host-local"}})

    assert (code, error["code"]) == (1, 2)
    assert "ipam" in error["msg"]
    assert "host-local" in error["msg"]
    assert agent.asked == []
    assert call("ADD", {"ipam": {}})[0] == 0


def test_a_namespace_that_is_gone_needs_no_cleanup(call: Call, agent: FakeAgent) -> None:
    """Code 3: the runtime need not call DEL."""
    code, error = call("ADD", {}, {"CNI_NETNS": "/run/netns/none"})

    assert (code, error["code"]) == (1, 3)
    assert agent.asked == []


def test_a_runtime_of_elsewhere_has_no_process(
    call: Call, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent in another namespace of processes has the number 0."""
    monkeypatch.setattr(os, "getppid", lambda: 0)
    call("ADD")

    assert only(agent)["runtime_pids"] == []


# --- DEL --------------------------------------------------------------------------------


def test_del_needs_no_namespace(call: Call, agent: FakeAgent) -> None:
    """Without CNI_NETNS and prevResult it removes all that the container has, twice as well."""
    for _ in range(2):
        assert call("DEL", {}, {"CNI_NETNS": "", "CNI_ARGS": "nonsense"}) == (0, None)

    assert agent.asked[0].body == {
        "plugin": "cni", "scope": "blue", "container_id": ID, "ifname": "eth0",
    }  # fmt: skip


# --- CHECK ------------------------------------------------------------------------------


def result_of(call: Call) -> dict[str, Any]:
    """Return the result of an ADD."""
    found: dict[str, Any] = call("ADD")[1]
    return found


def test_check_returns_nothing_or_an_error(call: Call) -> None:
    """Nothing while all is as ADD has reported it, right after it."""
    assert call("CHECK", {"prevResult": result_of(call)}) == (0, None)


def test_check_compares_with_the_previous_result(call: Call) -> None:
    """MAC and addresses of the interface; those of other plugins do not matter."""
    expected = result_of(call)
    expected["interfaces"][0]["mac"] = "02:00:00:00:00:01"
    expected["ips"][0]["address"] = "10.32.0.77/16"
    expected["ips"].append({"address": "192.0.2.7/24"})
    code, error = call("CHECK", {"prevResult": expected})

    assert (code, error["code"]) == (1, 101)
    assert "has MAC 02:4f:0a:20:00:02, not 02:00:00:00:00:01" in error["msg"]
    assert "no address 10.32.0.77/16" in error["msg"]
    assert "192.0.2.7" not in error["msg"]


def test_check_reports_what_the_kernel_lacks(call: Call, agent: FakeAgent) -> None:
    """Faults that the agent finds in the container are reported, and so is an unknown container."""
    expected = result_of(call)
    agent.answer("POST /v1/plugin/check", ATTACHED | {"problems": ["eth0 is down"]})
    _, lacking = call("CHECK", {"prevResult": expected})
    agent.fail("POST /v1/plugin/check", "not-found", 404, what="no such interface")
    _, unknown = call("CHECK", {"prevResult": expected})

    assert (lacking["code"], unknown["code"]) == (101, 101)
    assert "eth0 is down" in lacking["msg"]


def test_check_needs_the_previous_result(call: Call) -> None:
    """A runtime must include it."""
    assert call("CHECK")[1]["code"] == 7


# --- GC ---------------------------------------------------------------------------------


def test_gc_keeps_the_valid_attachments(call: Call, agent: FakeAgent) -> None:
    """Those that the runtime names, on this network alone."""
    valid = [{"containerID": ID, "ifname": "eth0"}]
    assert call("GC", {"cni.dev/valid-attachments": valid}) == (0, None)

    assert only(agent) == {
        "plugin": "cni", "scope": "blue", "valid": [{"container_id": ID, "ifname": "eth0"}],
    }  # fmt: skip


def test_gc_without_a_list_removes_nothing(call: Call, agent: FakeAgent) -> None:
    """An absent key is no empty list."""
    assert call("GC")[1]["code"] == 7
    assert agent.asked == []


# --- STATUS -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "networks", "code"),
    [
        ({"id": "1"}, [{"name": "blue", "sandbox": "absent", "failures": []}], None),
        ({"id": "1"}, [{"name": "Blue", "sandbox": "ok", "failures": []}], None),
        ({"id": "1"}, [{"name": "blue", "sandbox": "degraded", "failures": ["no bridge"]}], 51),
        ({"id": "1"}, [], 50),
        (None, [], 50),
    ],
)
def test_status_tells_whether_add_would_work(
    call: Call, agent: FakeAgent, cluster: Any, networks: list[Any], code: int | None
) -> None:
    """50 if not, 51 if existing containers may be cut off as well, else nothing."""
    agent.answer("GET /v1/status", {"cluster": cluster, "networks": networks})
    _, error = call("STATUS")

    assert (None if error is None else error["code"]) == code


# --- VERSION ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0", "1.1.0"])
def test_version_lists_all_versions(call: Call, version: str) -> None:
    """With the version of the request, and without any other variable."""
    nothing = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""}
    assert call("VERSION", {"cniVersion": version}, nothing) == (
        0, {"cniVersion": version, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]},
    )  # fmt: skip


# --- errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "fields", "environ", "code", "said"),
    [
        ("ADD", {"cniVersion": "2.0.0"}, {}, 1, "2.0.0"),
        ("ADD", {"cniVersion": ""}, {}, 1, "0.1.0"),
        ("CHECK", {"cniVersion": "0.3.1"}, {}, 1, "no CHECK"),
        ("GC", {"cniVersion": "1.0.0"}, {}, 1, "no GC"),
        ("STATUS", {"cniVersion": "1.0.0"}, {}, 1, "no STATUS"),
        ("", {}, {}, 4, "CNI_COMMAND is not set"),
        ("UP", {}, {}, 4, "CNI_COMMAND is 'UP'"),
        ("ADD", {}, {"CNI_CONTAINERID": "", "CNI_NETNS": ""}, 4, "CNI_CONTAINERID, CNI_NETNS"),
        ("ADD", {}, {"CNI_CONTAINERID": "../x"}, 4, "CNI_CONTAINERID"),
        ("ADD", {}, {"CNI_IFNAME": "a-name-of-16-chr"}, 4, "CNI_IFNAME"),
        ("ADD", {}, {"CNI_IFNAME": ".."}, 4, "CNI_IFNAME"),
        ("ADD", {}, {"CNI_IFNAME": "a b"}, 4, "CNI_IFNAME"),
        ("DEL", {}, {"CNI_IFNAME": ""}, 4, "CNI_IFNAME"),
        ("ADD", {}, {"CNI_ARGS": "IPP=10.0.0.1"}, 4, "IPP"),
        ("ADD", {}, {"CNI_ARGS": "IP"}, 4, "'IP' is not KEY=VALUE"),
        ("ADD", b"{", {}, 6, "not JSON"),
        ("ADD", b"[]", {}, 6, "not a JSON object"),
        ("VERSION", b"nothing", {}, 6, "not JSON"),
        ("ADD", {"name": "../x"}, {}, 7, "name"),
        ("ADD", {"name": None}, {}, 7, "name"),
        ("ADD", {"network": 7}, {}, 7, "network"),
        ("ADD", {"defaultRoute": "no"}, {}, 7, "defaultRoute"),
        ("ADD", {"prevResult": 7}, {}, 6, "prevResult"),
        ("ADD", {"runtimeConfig": []}, {}, None, ""),
        ("ADD", {"runtimeConfig": [7]}, {}, 6, "runtimeConfig"),
        ("ADD", {"runtimeConfig": {"ips": "10.0.0.1"}}, {}, 6, "ips"),
        ("ADD", {"runtimeConfig": {"bandwidth": {"ingressRate": "x"}}}, {}, 7, "bandwidth"),
        ("ADD", {"runtimeConfig": {"portMappings": [7]}}, {}, 6, "portMappings"),
        (
            "ADD",
            {"runtimeConfig": {"portMappings": [{"hostPort": 1, "protocol": "sctp"}]}},
            {}, 2, "sctp",
        ),
    ],
)  # fmt: skip
def test_each_invalid_call_has_its_code(
    call: Call, agent: FakeAgent, command: str, fields: Any, environ: dict[str, str],
    code: int | None, said: str,
) -> None:  # fmt: skip
    """Nothing is asked of the agent, and the message names what is invalid."""
    leaving, error = call(command, fields, environ)

    if code is None:
        assert leaving == 0
        return
    assert (leaving, error["code"]) == (1, code)
    assert said in error["msg"]
    assert error["cniVersion"] in ("0.3.1", "1.0.0", "1.1.0")
    assert agent.asked == []


@pytest.mark.parametrize(
    ("answer", "status", "field", "code"),
    [
        ("conflict", 409, "", 100),
        ("not-found", 404, "", 7),
        ("usage", 400, "rate_in", 7),
        ("usage", 400, "ifname", 4),
        ("timed-out", 504, "", 11),
        ("degraded", 503, "", 11),
        ("failed", 500, "", 102),
    ],
)
def test_an_error_of_the_agent_reads_as_it_is(
    call: Call, agent: FakeAgent, answer: str, status: int, field: str, code: int
) -> None:
    """The error says what happened, why, and what to do next, with the right code."""
    agent.fail("POST /v1/plugin/attach", answer, status, what="10.32.0.7 is taken",
               why="web on vm2 has it", hint="Choose another", field=field)  # fmt: skip
    leaving, error = call("ADD")

    assert (leaving, error["code"]) == (1, code)
    assert error["msg"].endswith("10.32.0.7 is taken: web on vm2 has it")
    assert error["details"] == "Choose another"


def test_without_an_agent_the_runtime_tries_again(call: Call, tmp_path: Path) -> None:
    """Code 11 on ADD and DEL, which must not seem done, and 50 on STATUS."""
    codes = [call(each, {}, {}, tmp_path)[1]["code"] for each in ("ADD", "DEL", "STATUS")]

    assert codes == [11, 11, 50]


def test_a_failed_read_is_an_input_failure(agent: FakeAgent) -> None:
    """Code 5, as the specification's example has it."""

    def read() -> bytes:
        raise OSError(5, "Input/output error")

    _, error = run({"CNI_COMMAND": "VERSION"}, read, PluginClient(str(agent.run_dir)))
    assert error is not None
    assert error["code"] == 5
