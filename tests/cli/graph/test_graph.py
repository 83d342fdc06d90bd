"""Pictures of a cluster, in each form."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli.graph import dot, mermaid, svg, text
from overlay.client.graph import model

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

OK = {"sending": "ok", "receiving": "ok", "size_expected": 1500, "size_carried": 1500}


def member(name: str, state: str = "alive", path: Any = None, *, here: bool = False) -> Any:
    """Return a member as the API shows it."""
    rtt_ms = None if here else 0.4
    return {"name": name, "address": "192.0.2.1", "state": state, "path": path, "rtt_ms": rtt_ms,
            "self": here}  # fmt: skip


def endpoint(name: str, node: str, network: str = "blue") -> Any:
    """Return an endpoint as the API shows it."""
    return {"name": name, "node": node, "network": network, "ips": ["10.32.0.2"]}


MEMBERS = [member("vm1", here=True), member("vm2", path=OK), member("vm3", "dead")]
ENDPOINTS = {
    "endpoints": [
        endpoint("c1", "vm1"),
        endpoint('we"b', "vm2"),
        endpoint("db", "vm2", "red"),
        endpoint("<b>", "vm3"),
    ],
    "elsewhere": ["green"],
}


@pytest.mark.parametrize(
    ("state", "path", "told"),
    [
        ("alive", OK, "ok"),
        ("alive", None, "unknown"),
        ("alive", OK | {"receiving": "lost"}, "lost"),
        ("alive", OK | {"sending": "silent"}, "silent"),
        ("alive", OK | {"sending": "unknown"}, "unknown"),
        ("alive", OK | {"receiving": "damaged"}, "lost"),
        ("alive", OK | {"size_carried": 1400}, "1400 bytes only"),
        ("alive", OK | {"size_carried": None}, "ok"),
        ("suspect", OK, "suspect"),
    ],
)
def test_a_path_is_ok_only_if_both_ways_are(state: str, path: Any, told: str) -> None:
    """A path that was not probed is unknown; a member that does not answer has its own state."""
    graph = model.read([member("vm1", here=True), member("vm2", state, path)], ENDPOINTS)

    assert [each.state for each in graph.paths] == [told]


def test_a_path_says_what_it_carries_and_its_kind() -> None:
    """In bytes, and in one word."""
    members = [
        member("vm1", here=True),
        member("vm2", path=OK),
        member("vm3", path=OK | {"size_carried": 1400}),
        member("vm4", "dead"),
        member("vm5", path=OK | {"sending": "silent"}),
    ]
    graph = model.read(members, ENDPOINTS)

    assert [(each.kind, each.size_carried) for each in graph.paths] == [
        ("ok", 1500),
        ("limited", 1400),
        ("away", None),
        ("lost", 1500),
    ]


def test_one_network_shows_its_hosts_only() -> None:
    """And this host, from which the paths are."""
    graph = model.read(MEMBERS, {"endpoints": ENDPOINTS["endpoints"]}, "red")

    assert [host.name for host in graph.hosts] == ["vm1", "vm2"]
    assert graph.networks == ("red",)
    assert [each.name for host in graph.hosts for each in host.containers] == ["db"]


def test_the_tree_is_the_whole_cluster() -> None:
    """Each host with its state, its path, and its containers by network."""
    assert text.draw(model.read(MEMBERS, ENDPOINTS)).splitlines() == [
        "vm1  192.0.2.1  alive  (this host)",
        "`-- blue",
        "    `-- c1  10.32.0.2",
        "vm2  192.0.2.1  alive  (path from vm1: 0.4 ms)",
        "|-- blue",
        '|   `-- we"b  10.32.0.2',
        "`-- red",
        "    `-- db  10.32.0.2",
        "vm3  192.0.2.1  dead  (path from vm1: dead)",
        "`-- blue",
        "    `-- <b>  10.32.0.2",
        "not known here: the containers of green",
    ]


def test_svg_is_well_formed() -> None:
    """Names are text, whatever is in them."""
    shown = ET.fromstring(svg.draw(model.read(MEMBERS, ENDPOINTS)))  # noqa: S314 - our own
    texts = [each.text for each in shown.iter("{http://www.w3.org/2000/svg}text")]

    assert {"<b> 10.32.0.2", 'we"b 10.32.0.2', "dead", "0.4 ms", "network red"} <= set(texts)


def test_names_are_quoted_for_graphviz() -> None:
    """Each name is quoted, so that none ends its string."""
    drawn = dot.draw(model.read(MEMBERS, ENDPOINTS))

    assert 'label="we\\"b 10.32.0.2\\nblue"' in drawn
    assert '"vm1" -- "vm3" [label="dead", style=dashed];' in drawn
    assert drawn.count("{") == drawn.count("}")


def test_mermaid_has_each_host_and_path() -> None:
    """Quotes are entities there."""
    drawn = mermaid.draw(model.read(MEMBERS, ENDPOINTS))

    assert 'we#quot;b 10.32.0.2<br>blue"]:::n0' in drawn
    assert 'h0 ---|"0.4 ms"| h1' in drawn
    assert 'h0 -.-|"dead"| h2' in drawn


def test_an_empty_cluster_can_be_drawn() -> None:
    """A host alone, without a container."""
    graph = model.read([member("vm1", here=True)], {"endpoints": []})

    for form in (text, mermaid, dot, svg):
        assert "vm1" in form.draw(graph)


@pytest.mark.parametrize("form", ["--text", "--mermaid", "--dot", "--svg", "--json"])
def test_the_verb_draws_each_form(overlayd: Run, agent: FakeAgent, form: str) -> None:
    """From the answers of the agent."""
    agent.answer("GET /v1/members", {"schema": "overlayd.members/v1", "members": MEMBERS})
    agent.answer("GET /v1/endpoints", {"schema": "overlayd.endpoint-ls/v1", **ENDPOINTS})
    outcome = overlayd("graph", form)

    assert outcome.code == 0
    assert "vm2" in outcome.out
