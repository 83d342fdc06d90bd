"""Verbs about networks and the world: expose, publish, and their contraries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

EXPOSED = {
    "schema": "overlayd.expose/v1", "network": "blue", "changed": True, "exposed": True,
    "exposed_why": None, "host_ips": ["10.32.255.254", "fd32::fe"], "host_interfaces": ["ovh1"],
}  # fmt: skip
PORT = {
    "protocol": "tcp", "host_ip": None, "host_port": 8080, "name": "web", "network": "blue",
    "port": 80, "ips": ["10.32.0.2", "fd32::2"], "source_kept": True, "owner": None,
    "fault": None,
}  # fmt: skip


def test_expose_prints_the_hosts_addresses(overlayd: Run, agent: FakeAgent) -> None:
    """The addresses are printed one per line."""
    agent.answer("POST /v1/expose", EXPOSED)

    assert overlayd("expose", "blue").out == "10.32.255.254\nfd32::fe\n"
    assert agent.asked[-1].body == {"network": "blue"}
    assert json.loads(overlayd("expose", "blue", "--json").out) == EXPOSED


def test_unexpose_prints_its_result(overlayd: Run, agent: FakeAgent) -> None:
    """The result is on stderr; an unexposed network is not an error."""
    for changed, told in (
        (True, "is no longer exposed on this host"),
        (False, "was not exposed on this host"),
    ):
        agent.answer("POST /v1/unexpose", EXPOSED | {"changed": changed})
        outcome = overlayd("unexpose", "blue")

        assert (outcome.code, outcome.out) == (0, "")
        assert told in outcome.err


def test_publish_sends_every_option(overlayd: Run, agent: FakeAgent) -> None:
    """Name, ports, network and address reach the agent."""
    answer = {"schema": "overlayd.publish/v1", "name": "web", "network": "blue", "changed": True,
              "ports": ["8080:80/tcp", "53:53/udp"]}  # fmt: skip
    agent.answer("POST /v1/published", answer)
    outcome = overlayd("publish", "web", "8080:80", "53:53/udp", "--network", "blue",
                       "--host-ip", "192.0.2.1")  # fmt: skip

    assert (outcome.code, outcome.out) == (0, "")
    assert "8080:80/tcp 53:53/udp for web" in outcome.err
    assert agent.asked[-1].body == {
        "name": "web", "ports": ["8080:80", "53:53/udp"], "network": "blue",
        "host_ip": "192.0.2.1",
    }  # fmt: skip


def test_a_port_that_leads_nowhere_is_no_success(overlayd: Run, agent: FakeAgent) -> None:
    """The record is there, and the kernel refuses the rule."""
    answer = {"schema": "overlayd.publish/v1", "name": "web", "network": "blue", "changed": True,
              "ports": ["8080:80/tcp"], "fault": "rules: no space left on device"}  # fmt: skip
    agent.answer("POST /v1/published", answer)
    outcome = overlayd("publish", "web", "8080:80")

    assert outcome.code == 4
    assert "leads nowhere yet: rules: no space left on device" in outcome.err

    agent.answer("POST /v1/expose", EXPOSED | {"fault": "rules: no space left on device"})
    outcome = overlayd("expose", "blue")
    assert outcome.code == 4
    assert "do not reach beyond this host yet: rules: no space" in outcome.err


def test_publish_ls_is_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """Rows have port, target and state; with ports, `ls` is a container's name."""
    waiting = PORT | {"host_ip": "fd00::1", "host_port": 53, "protocol": "udp", "ips": [],
                      "source_kept": False, "owner": "docker",
                      "fault": "nothing is called web on blue"}  # fmt: skip
    agent.answer("GET /v1/published", {"schema": "overlayd.publish-ls/v1",
                                       "published": [PORT, waiting]})  # fmt: skip

    lines = overlayd("publish", "ls").out.splitlines()
    assert lines[0].split()[:2] == ["HOST", "PORT"]
    assert lines[1].split() == ["*:8080/tcp", "web", "blue", "10.32.0.2:80", "[fd32::2]:80", "ok"]
    assert "[fd00::1]:53/udp" in lines[2]
    assert "nothing is called web on blue (by docker)" in lines[2]
    agent.answer(
        "POST /v1/published",
        {
            "schema": "overlayd.publish/v1",
            "name": "ls",
            "network": "blue",
            "changed": True,
            "ports": ["1:1/tcp"],
        },
    )
    overlayd("publish", "ls", "1:1")
    assert agent.asked[-1].body["name"] == "ls"


def test_unpublish_prints_the_removed_ports(overlayd: Run, agent: FakeAgent) -> None:
    """Without ports, all are removed; removing nothing is not an error."""
    agent.answer("POST /v1/unpublish", {"schema": "overlayd.unpublish/v1", "name": "web",
                                        "ports": ["8080:80/tcp"], "missing": []})  # fmt: skip
    assert overlayd("unpublish", "web").err == "unpublished 8080:80/tcp for web\n"
    assert agent.asked[-1].body == {"name": "web", "ports": [], "network": None}
    agent.answer("POST /v1/unpublish", {"schema": "overlayd.unpublish/v1", "name": "web",
                                        "ports": [], "missing": []})  # fmt: skip
    assert overlayd("unpublish", "web").err == "no port of this host is published for web\n"
    agent.answer("POST /v1/unpublish", {"schema": "overlayd.unpublish/v1", "name": "web",
                                        "ports": ["81:81/tcp"],
                                        "missing": ["80:80/tcp"]})  # fmt: skip
    outcome = overlayd("unpublish", "web", "80", "81")
    assert (outcome.code, outcome.err.splitlines()) == (
        0, ["unpublished 81:81/tcp for web", "not published on this host for web: 80:80/tcp"]
    )  # fmt: skip


def test_attach_can_publish(overlayd: Run, agent: FakeAgent) -> None:
    """Stdout is the address; the agent publishes the ports with the attach, in one request."""
    endpoint = {"network": "blue", "ip": "10.32.0.2", "ips": ["10.32.0.2"], "ifname": "eth0",
                "mac": "02:00:00:00:00:02", "name": "web", "created": True}  # fmt: skip
    agent.answer("POST /v1/endpoints", {"schema": "overlayd.attach/v1", "endpoints": [endpoint],
                                        "published": ["8080:80/tcp"], "unconfirmed": [],
                                        "elapsed_ms": 1})  # fmt: skip
    outcome = overlayd("attach", "web", "--network", "blue", "--publish", "8080:80")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert outcome.err == "published 8080:80/tcp for web\n"
    assert [each.body["publish"] for each in agent.asked] == [["8080:80"]]


@pytest.mark.parametrize("verb", [("attach", "web"), ("container", "add", "web")])
def test_json_output_has_only_the_error_of_a_refused_port(
    overlayd: Run, agent: FakeAgent, verb: tuple[str, ...]
) -> None:
    """Stdout has one object even if only publishing failed."""
    for path in ("endpoints", "containers"):
        agent.fail(f"POST /v1/{path}", "conflict", 409, what="port 8080/tcp is taken")
    outcome = overlayd(*verb, "--network", "blue", "--publish", "8080:80", "--json")

    assert outcome.code == 6
    assert json.loads(outcome.out)["error"]["what"] == "port 8080/tcp is taken"


def test_publish_without_a_network_is_refused_locally(overlayd: Run, agent: FakeAgent) -> None:
    """The container is not created, since no request is sent."""
    for networks in ((), ("--network", "none"), ("--network", "host")):
        outcome = overlayd("container", "add", "web", *networks, "--publish", "8080:80")
        assert (outcome.code, agent.asked) == (2, [])
        assert "--network NETWORK" in outcome.err


def test_an_invalid_port_is_refused_before_any_request(overlayd: Run, agent: FakeAgent) -> None:
    """This holds for attach too, which must not attach first and then fail."""
    before = len(agent.asked)
    for port in ("99999:80", "0:80", "80:80/sctp", "http", "1:2:3", ""):
        for line in (
            ("attach", "web", "--network", "blue", "--publish", port),
            ("container", "add", "web", "--network", "blue", "--publish", port),
            ("publish", "web", port),
        ):
            outcome = overlayd(*line)

            assert outcome.code == 2
            assert f"invalid port {port!r}" in outcome.err
    assert overlayd("publish", "web").code == 2
    assert len(agent.asked) == before


SERVICE = {
    "name": "web-published", "network": "blue", "labels": {"published": "web"},
    "publish": [{"port": 8080, "service_port": 80, "protocol": "tcp", "mode": "ingress",
                 "sources": ["10.0.0.0/16"]}],
}  # fmt: skip


def services_of(agent: FakeAgent, *found: object) -> None:
    """Let the agent know a container web on blue, and these services."""
    agent.answer("GET /v1/endpoints", {"endpoints": [{"name": "web", "network": "blue"}]})
    agent.answer("GET /v1/services", {"services": list(found)})


def test_all_hosts_is_a_service_of_one_backend(overlayd: Run, agent: FakeAgent) -> None:
    """With the ports behind each published one, and who may ask."""
    services_of(agent)
    agent.answer("POST /v1/services", SERVICE)
    told = overlayd("publish", "WEB", "8080:80", "--all-hosts", "--source", "10.0.0.0/16").err

    assert "published 8080:80/tcp for WEB on every host (by web-published)" in told
    assert agent.asked[-1].body == {
        "name": "web-published", "network": "blue", "backends": ["web"],
        "labels": {"published": "web"}, "ports": [{"port": 80, "protocol": "tcp"}],
        "publish": [{"port": 8080, "service_port": 80, "protocol": "tcp",
                     "sources": ["10.0.0.0/16"]}],
    }  # fmt: skip


def test_further_ports_join_those_on_all_hosts(overlayd: Run, agent: FakeAgent) -> None:
    """And one that is there may be led elsewhere."""
    services_of(agent, SERVICE)
    agent.answer("POST /v1/services/web-published", SERVICE)
    overlayd("publish", "web", "53:53/udp", "--all-hosts")

    body = agent.asked[-1].body
    assert [each["port"] for each in body["publish"]] == [8080, 53]
    assert [each["port"] for each in body["ports"]] == [80, 53]


def test_the_last_port_on_all_hosts_takes_the_service(overlayd: Run, agent: FakeAgent) -> None:
    """Another one stays; a port that is not there is no error."""
    services_of(agent, SERVICE)
    agent.answer("DELETE /v1/services/web-published", {})
    assert "no such port" in overlayd("unpublish", "web", "9090", "--all-hosts").err
    for line in (("web", "8080:80"), ("web",)):
        told = overlayd("unpublish", *line, "--all-hosts").err
        assert "unpublished 8080:80/tcp for web on every host" in told
        assert agent.asked[-1].line == "DELETE /v1/services/web-published"


@pytest.mark.parametrize(
    ("line", "code", "what"),
    [
        (("web", "80", "--source", "10.0.0.0/8"), 2, "--source applies to --all-hosts"),
        (("web", "80", "--all-hosts", "--host-ip", "10.0.0.1"), 2, "exclude each other"),
        (("nope", "80", "--all-hosts"), 5, "no container is called nope on any network known here"),
        (("web", "80", "--all-hosts", "--network", "red"), 5, "on network red"),
    ],
)
def test_a_wrong_all_hosts_says_what_is_wrong(
    overlayd: Run, agent: FakeAgent, line: tuple[str, ...], code: int, what: str
) -> None:
    """Before anything is written."""
    services_of(agent)
    outcome = overlayd("publish", *line)

    assert outcome.code == code
    assert what in outcome.err
