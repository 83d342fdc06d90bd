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
    "port": 80, "ips": ["10.32.0.2", "fd32::2"], "source_kept": True, "fault": None,
}  # fmt: skip


def test_expose_prints_the_hosts_addresses(overlayd: Run, agent: FakeAgent) -> None:
    """One per line, for scripts; the network is asked for by name."""
    agent.answer("POST /v1/expose", EXPOSED)

    assert overlayd("expose", "blue").out == "10.32.255.254\nfd32::fe\n"
    assert agent.asked[-1].body == {"network": "blue"}
    assert json.loads(overlayd("expose", "blue", "--json").out) == EXPOSED


def test_unexpose_says_what_it_did(overlayd: Run, agent: FakeAgent) -> None:
    """On stderr; that there was nothing to do is no error."""
    for changed, told in ((True, "exposed to this host no more"), (False, "is not exposed here")):
        agent.answer("POST /v1/unexpose", EXPOSED | {"changed": changed})
        outcome = overlayd("unexpose", "blue")

        assert (outcome.code, outcome.out) == (0, "")
        assert told in outcome.err


def test_publish_sends_what_the_line_says(overlayd: Run, agent: FakeAgent) -> None:
    """Name, ports, network and address."""
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


def test_publish_ls_is_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """Where, to whom, and whether something answers; a container may be called ls all the same."""
    waiting = PORT | {"host_ip": "fd00::1", "host_port": 53, "protocol": "udp", "ips": [],
                      "source_kept": False, "fault": "nothing is called web on blue"}  # fmt: skip
    agent.answer("GET /v1/published", {"schema": "overlayd.publish-ls/v1",
                                       "published": [PORT, waiting]})  # fmt: skip

    lines = overlayd("publish", "ls").out.splitlines()
    assert lines[0].split()[:2] == ["HOST", "PORT"]
    assert lines[1].split() == ["*:8080/tcp", "web", "blue", "10.32.0.2:80", "[fd32::2]:80", "ok"]
    assert "[fd00::1]:53/udp" in lines[2]
    assert "nothing is called web on blue" in lines[2]
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


def test_unpublish_says_what_is_gone(overlayd: Run, agent: FakeAgent) -> None:
    """All of a name's ports where none is named; nothing gone is no error."""
    agent.answer("POST /v1/unpublish", {"schema": "overlayd.unpublish/v1", "name": "web",
                                        "ports": ["8080:80/tcp"]})  # fmt: skip
    assert "8080:80/tcp" in overlayd("unpublish", "web").err
    assert agent.asked[-1].body == {"name": "web", "ports": [], "network": None}
    agent.answer("POST /v1/unpublish", {"schema": "overlayd.unpublish/v1", "name": "web",
                                        "ports": []})  # fmt: skip
    outcome = overlayd("unpublish", "web", "8080:80")
    assert (outcome.code, "nothing of that" in outcome.err) == (0, True)


def test_attach_can_publish(overlayd: Run, agent: FakeAgent) -> None:
    """The address alone is on stdout; the ports are asked for by the name and network it got."""
    endpoint = {"network": "blue", "ip": "10.32.0.2", "ips": ["10.32.0.2"], "ifname": "eth0",
                "mac": "02:00:00:00:00:02", "name": "web", "created": True}  # fmt: skip
    agent.answer("POST /v1/endpoints", {"schema": "overlayd.attach/v1", "endpoints": [endpoint],
                                        "unconfirmed": [], "elapsed_ms": 1})  # fmt: skip
    agent.answer("POST /v1/published", {"schema": "overlayd.publish/v1", "name": "web",
                                        "network": "blue", "changed": True,
                                        "ports": ["8080:80/tcp"]})  # fmt: skip
    outcome = overlayd("attach", "web", "--network", "blue", "--publish", "8080:80")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert agent.asked[-1].body == {"name": "web", "network": "blue", "ports": ["8080:80"]}


@pytest.mark.parametrize("verb", [("attach", "web"), ("container", "add", "web")])
def test_with_json_a_port_that_is_refused_is_the_one_answer(
    overlayd: Run, agent: FakeAgent, verb: tuple[str, ...]
) -> None:
    """A script finds one object on stdout, whatever part of the line failed."""
    endpoint = {"network": "blue", "ip": "10.32.0.2", "name": "web", "created": True}
    for path in ("endpoints", "containers"):
        agent.answer(f"POST /v1/{path}", {"endpoints": [endpoint], "unconfirmed": []})
    agent.fail("POST /v1/published", "conflict", 409, what="port 8080/tcp is taken")
    outcome = overlayd(*verb, "--network", "blue", "--publish", "8080:80", "--json")

    assert outcome.code == 6
    assert json.loads(outcome.out)["error"]["what"] == "port 8080/tcp is taken"


def test_what_is_on_no_network_is_not_made_to_be_published(overlayd: Run, agent: FakeAgent) -> None:
    """The line is refused before anything is asked of the agent."""
    for networks in ((), ("--network", "none"), ("--network", "host")):
        outcome = overlayd("container", "add", "web", *networks, "--publish", "8080:80")
        assert (outcome.code, agent.asked) == (2, [])
        assert "--network NETWORK" in outcome.err


def test_a_port_that_is_none_is_refused_before_anything_is_asked(
    overlayd: Run, agent: FakeAgent
) -> None:
    """Also by attach, which must not attach first and then fail."""
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
