"""The forms in which every list can be printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

LISTS: list[tuple[str, str, str, dict[str, Any], str]] = [
    ("network ls", "/v1/networks", "networks", {"name": "blue"}, "blue"),
    ("members", "/v1/members", "members", {"name": "vm1"}, "vm1"),
    ("node ls", "/v1/members", "members", {"name": "vm1"}, "vm1"),
    ("endpoint ls", "/v1/endpoints", "endpoints", {"name": "web"}, "web"),
    ("container ls", "/v1/containers", "containers", {"name": "c1"}, "c1"),
    ("dns ls", "/v1/dns", "names", {"name": "db"}, "db"),
    ("authority ls", "/v1/authority", "holders", {"name": "vm1"}, "vm1"),
    ("token ls", "/v1/tokens", "tokens", {"id": "5d1c0a77be01f302"}, "5d1c0a77be01f302"),
]


@pytest.mark.parametrize(("words", "path", "field", "row", "name"), LISTS)
def test_quiet_prints_names_only(
    overlayd: Run, agent: FakeAgent, words: str, path: str, field: str, row: Any, name: str
) -> None:
    """One name a line, for scripts."""
    agent.answer(f"GET {path}", {"schema": "overlayd.x/v1", field: [row, row]})

    assert overlayd(*words.split(), "-q").out == f"{name}\n{name}\n"


@pytest.mark.parametrize(("words", "path", "field", "row", "name"), LISTS)
def test_a_format_prints_each_row(
    overlayd: Run, agent: FakeAgent, words: str, path: str, field: str, row: Any, name: str
) -> None:
    """Any field can be printed."""
    agent.answer(f"GET {path}", {"schema": "overlayd.x/v1", field: [row]})
    key = next(iter(row))

    assert overlayd(*words.split(), "--format", f"<{{{{.{key}}}}}>").out == f"<{name}>\n"


def test_an_empty_list_prints_nothing_to_a_script(overlayd: Run, agent: FakeAgent) -> None:
    """Neither a note nor a header."""
    agent.answer("GET /v1/networks", {"schema": "overlayd.network-ls/v1", "networks": []})
    outcome = overlayd("network", "ls", "--quiet")

    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_two_forms_at_once_are_refused(overlayd: Run, agent: FakeAgent) -> None:
    """A script that asks for both would read the wrong one."""
    agent.answer("GET /v1/networks", {"schema": "overlayd.network-ls/v1", "networks": []})
    outcome = overlayd("network", "ls", "-q", "--format", "{{.Name}}")

    assert outcome.code == 2
    assert "--quiet and --format" in outcome.err


def test_a_wrong_format_names_its_option(overlayd: Run, agent: FakeAgent) -> None:
    """The error says what is wrong, and shows a template that works."""
    agent.answer("GET /v1/members", {"schema": "x", "members": [{"name": "vm1"}]})
    outcome = overlayd("members", "--format", "{{.Age}}")

    assert outcome.code == 2
    assert "--format" in outcome.err
    assert "there is no field .Age; known fields: .name" in outcome.err


def test_inspect_takes_a_format(overlayd: Run, agent: FakeAgent) -> None:
    """As docker's inspect does."""
    agent.answer("GET /v1/networks/blue", {"schema": "x", "name": "blue", "mtu": 1450})

    assert overlayd("network", "inspect", "blue", "--format", "{{.MTU}}").out == "1450\n"


def network(name: str, endpoints: int, hosts: list[str], **labels: str) -> dict[str, Any]:
    """Return a row of `network ls`."""
    return {"name": name, "endpoints": endpoints, "hosts": hosts, "labels": labels}


def test_prune_lists_unused_networks_first(overlayd: Run, agent: FakeAgent) -> None:
    """Nothing is removed without --force."""
    rows = [network("blue", 1, ["vm1"]), network("old", 0, []), network("here", 0, ["vm2"])]
    agent.answer("GET /v1/networks", {"schema": "x", "networks": rows})
    outcome = overlayd("network", "prune")

    assert outcome.out == "old\n"
    assert "sudo overlayd network prune --force" in outcome.err
    assert [asked.line for asked in agent.asked] == ["GET /v1/networks"]


def test_prune_removes_with_force(overlayd: Run, agent: FakeAgent) -> None:
    """Only those that the filter selects."""
    rows = [network("old", 0, [], team="a"), network("older", 0, [], team="b")]
    agent.answer("GET /v1/networks", {"schema": "x", "networks": rows})
    agent.answer("DELETE /v1/networks/older", {"schema": "x", "removed": ["older"]})
    outcome = overlayd("network", "prune", "-f", "--filter", "label=team=b", "--json")

    assert json.loads(outcome.out)["removed"] == ["older"]
    assert agent.asked[-1].line == "DELETE /v1/networks/older"
    assert len(agent.asked) == 2


@pytest.mark.parametrize(
    ("words", "which"),
    [((), "no network is unused"), (("--filter", "name=x"), "no network that matches is unused")],
)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_prune_says_that_there_is_nothing_to_remove(
    overlayd: Run, agent: FakeAgent, words: tuple[str, ...], which: str, force: tuple[str, ...]
) -> None:
    """Of all networks, or of those that the filter selects."""
    agent.answer("GET /v1/networks", {"schema": "x", "networks": [network("blue", 1, ["vm1"])]})
    outcome = overlayd("network", "prune", *force, *words)

    assert (outcome.code, outcome.out) == (0, "")
    assert which in outcome.err
    assert "nothing to remove" in outcome.err
    assert len(agent.asked) == 1


def test_connect_is_attach(overlayd: Run, agent: FakeAgent) -> None:
    """With the network first, as docker has it."""
    agent.answer("POST /v1/endpoints", {"schema": "x", "endpoints": []})
    overlayd("network", "connect", "--alias", "www", "blue", "web")

    sent = agent.asked[-1].body
    assert (sent["target"], sent["networks"], sent["aliases"]) == ("web", ["blue"], ["www"])


def test_disconnect_is_detach(overlayd: Run, agent: FakeAgent) -> None:
    """With the network first, as docker has it."""
    agent.answer("POST /v1/detach", {"schema": "x", "detached": [], "not_attached": []})
    overlayd("network", "disconnect", "blue", "web")

    assert agent.asked[-1].body == {"target": "web", "networks": ["blue"]}


def test_swarms_options_of_create_are_understood(overlayd: Run, agent: FakeAgent) -> None:
    """`docker network create -d overlay --attachable --opt encrypted` may be typed as it is."""
    agent.answer("POST /v1/networks", network("vault", 0, []) | {"vni": 1, "subnets": []})
    words = ["network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "vault"]
    assert overlayd(*words).code == 0

    sent = agent.asked[-1].body
    assert (sent["driver"], sent["encrypted"]) == ("overlay", True)
