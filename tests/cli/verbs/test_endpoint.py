"""Commands attach, detach and endpoint ls."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


def _answer(endpoints: list[dict[str, Any]], unconfirmed: list[str]) -> dict[str, Any]:
    return {
        "schema": "overlayd.attach/v1",
        "endpoints": endpoints,
        "unconfirmed": unconfirmed,
        "elapsed_ms": 8.1,
    }


def test_attach_prints_the_address_and_nothing_else(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """On success, stdout is the address and stderr is empty."""
    agent.answer("POST /v1/endpoints", _answer([attached], []))
    outcome = overlayd("attach", "web", "--network", "blue")

    assert (outcome.code, outcome.out, outcome.err) == (0, "10.32.0.2\n", "")
    assert agent.asked[-1].body == {
        "target": "web",
        "name": None,
        "networks": ["blue"],
        "ip": None,
        "mac": None,
        "ifname": None,
        "default_route": True,
        "aliases": [],
        "labels": {},
        "port_security": True,
        "wait": "all",
    }


def test_attach_sends_every_option(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """Every option reaches the agent."""
    agent.answer("POST /v1/endpoints", _answer([attached], []))
    overlayd(
        "attach", "pid:4242", "--network", "blue", "--ip", "10.32.0.50", "--mac",
        "02:00:00:00:00:01", "--ifname", "eth7", "--name", "db", "--no-default-route", "--alias",
        "www", "--alias", "w", "--label", "k=v", "--wait", "none",
        "--no-port-security",
    )  # fmt: skip

    assert agent.asked[-1].body == {
        "target": "pid:4242",
        "name": "db",
        "networks": ["blue"],
        "ip": "10.32.0.50",
        "mac": "02:00:00:00:00:01",
        "ifname": "eth7",
        "default_route": False,
        "aliases": ["www", "w"],
        "labels": {"k": "v"},
        "port_security": False,
        "wait": "none",
    }


def test_a_degraded_network_is_warned_of(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """The address is printed all the same: the container is attached."""
    why = "blue: put fdb 02:00:00:00:00:07 dev vxlan0: No space left on device"
    agent.answer("POST /v1/endpoints", _answer([attached], []) | {"degraded": [why]})
    outcome = overlayd("attach", "web", "--network", "blue")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert f"degraded network {why}" in outcome.err
    assert "overlayd verify" in outcome.err


def test_several_networks_give_one_address_per_line(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """Addresses come in the order of the networks, each once."""
    second = attached | {"network": "red", "ip": "10.40.0.2"}
    agent.answer("POST /v1/endpoints", _answer([attached, second], []))
    outcome = overlayd("attach", "web", "--network", "blue", "--network", "red", "--network", "red")

    assert outcome.out == "10.32.0.2\n10.40.0.2\n"
    assert agent.asked[-1].body["networks"] == ["blue", "red"]
    overlayd("attach", "web", "--network", "blue", "--network", "Red", "--network", "BLUE")
    assert agent.asked[-1].body["networks"] == ["blue", "Red"]


def test_one_address_for_two_networks_is_a_usage_error(overlayd: Run) -> None:
    """--ip is refused with two networks."""
    outcome = overlayd("attach", "web", "--network", "a", "--network", "b", "--ip", "10.0.0.1")

    assert outcome.code == 2
    assert "--ip applies to a single network, but 2 were given" in outcome.err


def test_unconfirmed_peers_are_named_on_stderr(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """The address is still printed, and the exit code is 0."""
    agent.answer("POST /v1/endpoints", _answer([attached], ["vm2", "vm3"]))
    outcome = overlayd("attach", "web", "--network", "blue")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert "not yet confirmed by vm2, vm3" in outcome.err


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("unanswered", "the data path to vm2, vm3 has not answered yet"),
        ("unreachable", "containers there are not reachable from this host"),
    ],
)
def test_a_path_is_called_lost_by_its_verdict_only(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any], field: str, text: str
) -> None:
    """A late answer is no loss; either is a warning beside the address."""
    agent.answer("POST /v1/endpoints", _answer([attached], []) | {field: ["vm2", "vm3"]})
    outcome = overlayd("attach", "web", "--network", "blue")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert text in outcome.err
    assert outcome.err.count("warning") == 1


def test_attaching_again_returns_the_same_address(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """Stderr says that it was attached before; stdout has only the address."""
    agent.answer("POST /v1/endpoints", _answer([attached | {"created": False}], []))
    outcome = overlayd("attach", "web", "--network", "blue")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert "web was already attached to blue, as eth0" in outcome.err


def test_attaching_again_prints_what_it_changed(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """Stderr has each changed rate with its previous value."""
    changed = [
        {"field": "rate_in", "before": None, "after": 10_000_000},
        {"field": "rate_out", "before": 2_500_000_000, "after": None},
        {"field": "gateway_priority", "before": 0, "after": 5},
        {"field": "default_route", "before": False, "after": True},
    ]
    again = attached | {"created": False, "changed": changed}
    agent.answer("POST /v1/endpoints", _answer([again], []))
    outcome = overlayd("attach", "web", "--network", "blue", "--rate", "10mbit")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert outcome.err == (
        "web was already attached to blue, as eth0; changed: rate in none -> 10mbit, rate out "
        "2.5gbit -> none, gateway priority 0 -> 5, default route false -> true\n"
    )


def test_attach_as_json_is_the_agents_answer(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """With --json, stdout is one object with its schema."""
    answer = _answer([attached], [])
    agent.answer("POST /v1/endpoints", answer)

    assert json.loads(overlayd("attach", "web", "--network", "blue", "--json").out) == answer


@pytest.mark.parametrize(
    ("detached", "missing", "said"),
    [
        ([], ["blue"], "web was not attached to blue\n"),
        ([], [], "web was not attached; nothing to do\n"),
        (
            [{"network": "blue", "ip": "10.32.0.2", "name": "web"}],
            [],
            "detached web from blue (10.32.0.2)\n",
        ),
    ],
)
def test_detach_always_succeeds(
    overlayd: Run,
    agent: FakeAgent,
    detached: list[dict[str, Any]],
    missing: list[str],
    said: str,
) -> None:
    """Detaching a container that is not attached is not an error."""
    agent.answer("POST /v1/detach", {"schema": "overlayd.detach/v1", "detached": detached,
                                     "not_attached": missing})  # fmt: skip
    outcome = overlayd("detach", "web", "--network", "blue")

    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == said
    assert agent.asked[-1].body == {"target": "web", "networks": ["blue"]}


def test_endpoints_are_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """Local endpoints are marked and have a target."""
    web = {
        "id": "00", "name": "web", "network": "blue", "vni": 9, "ips": ["10.32.0.2"],
        "mac": "02:00:00:00:00:02", "node": "vm1", "node_state": "alive", "local": False,
        "target": None, "ifname": None, "aliases": ["www"], "labels": {"k": "v"},
    }  # fmt: skip
    here = web | {"name": "db", "local": True, "target": "netns:db", "ifname": "eth0"}
    answer = {
        "schema": "overlayd.endpoint-ls/v1",
        "endpoints": [web, here],
        "elsewhere": ["red"],
    }
    agent.answer("GET /v1/endpoints", answer)
    outcome = overlayd("endpoint", "ls", "--network", "blue")

    assert agent.asked[-1].query == {"network": ["blue"]}
    assert outcome.out.splitlines() == [
        "NAME  NETWORK  ADDRESS    MAC                NODE   STATE  TARGET    IFNAME",
        "web   blue     10.32.0.2  02:00:00:00:00:02  vm1    alive  -         -",
        "db    blue     10.32.0.2  02:00:00:00:00:02  vm1 *  alive  netns:db  eth0",
    ]
    assert "not listed: those of red, whose records this host does not hold" in outcome.err
    assert "k=v" in overlayd("endpoint", "ls", "--wide").out
    assert agent.asked[-1].query == {}


def test_a_repeated_ip_is_an_address_of_each_family(overlayd: Run, agent: FakeAgent) -> None:
    """Both are requested, in their order."""
    agent.answer("POST /v1/endpoints", _answer([], []))
    overlayd("attach", "c1", "--network", "blue", "--ip", "10.1.0.9", "--ip", "fd00::9")
    body = agent.asked[-1].body

    assert body["ips"] == ["10.1.0.9", "fd00::9"]
    assert body.get("ip") is None


def test_a_label_with_two_values_is_refused(overlayd: Run) -> None:
    """One of them would be lost."""
    words = ("attach", "c1", "--network", "blue", "--label", "a=1", "--label", "a=2")
    done = overlayd(*words)

    assert (done.code, "a is given twice" in done.err) == (2, True)


def test_set_sends_every_option_and_prints_changes(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """Without a change it says so."""
    changes = [{"field": "aliases", "before": "", "after": "www shop"}]
    shown = [attached | {"created": False, "changed": changes},
             attached | {"network": "red", "created": False}]  # fmt: skip
    agent.answer("POST /v1/endpoints/set", {"endpoints": shown})
    line = "endpoint set web --network blue --name web2 --add-alias www --add-alias shop"
    outcome = overlayd(*line.split(), "--remove-alias", "x", "--add-label", "a=b",
                       "--remove-label", "c")  # fmt: skip

    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.splitlines() == [
        "web on blue: aliases none -> www shop", "web on red: nothing to change"
    ]  # fmt: skip
    assert agent.asked[-1].body == {
        "target": "web", "networks": ["blue"], "name": "web2", "add_aliases": ["www", "shop"],
        "remove_aliases": ["x"], "add_labels": {"a": "b"}, "remove_labels": ["c"],
    }  # fmt: skip


def test_set_needs_a_change(overlayd: Run, agent: FakeAgent) -> None:
    """The network alone says where, not what."""
    outcome = overlayd("endpoint", "set", "web", "--network", "blue")

    assert outcome.code == 2
    assert "nothing to change was given" in outcome.err
    assert "overlayd endpoint set --help" in outcome.err
    assert agent.asked == []


def test_attach_waits_for_a_start(
    overlayd: Run, agent: FakeAgent, attached: dict[str, Any]
) -> None:
    """The target that the agent found is attached; what it waits for is told once."""
    agent.answer("GET /v1/networks/blue", {})
    agent.answer("GET /v1/target", {"target": "docker:web", "runs": True, "why": ""})
    agent.answer("POST /v1/endpoints", _answer([attached], []))
    outcome = overlayd("attach", "web", "--network", "blue", "--wait")

    assert (outcome.code, outcome.out, outcome.err) == (0, "10.32.0.2\n", "")
    assert [each.line for each in agent.asked] == [
        "GET /v1/networks/blue", "GET /v1/target", "POST /v1/endpoints",
    ]  # fmt: skip
    assert agent.asked[-1].body["target"] == "docker:web"
    assert agent.asked[-1].body["wait"] == "all"


def test_a_wait_for_a_start_is_bounded(overlayd: Run, agent: FakeAgent) -> None:
    """Nothing is attached after --timeout; an unknown network is refused before the wait."""
    agent.answer("GET /v1/networks/blue", {})
    why = "docker:web is not running (it is exited)"
    agent.answer("GET /v1/target", {"target": "docker:web", "runs": False, "why": why})
    words = ("attach", "docker:web", "--network", "blue", "--wait", "start")
    outcome = overlayd("--timeout", "0", *words)

    assert outcome.code == 7
    assert f"has not started within 0 s\n  why:   {why}" in outcome.err
    assert [each.line for each in agent.asked] == ["GET /v1/networks/blue", "GET /v1/target"]
    agent.fail("GET /v1/networks/blue", "not-found", 404)
    assert overlayd(*words).code == 5


def test_only_attach_may_wait_for_a_start(overlayd: Run) -> None:
    """A new container runs at once."""
    assert overlayd("container", "add", "c", "--network", "blue", "--wait", "start").code == 2
