"""Wrong requests: one clear message, the right exit code, and no changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from overlay.lab.driver import AgentDriver
from overlay.wire.identity.token import Token

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e


def lasting_of(endpoints: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return endpoints without what may change by itself: their hosts' states, and counters."""
    changing = {"state", "dropped"}
    return [{key: each[key] for key in each.keys() - changing} for each in endpoints]


def traces(cluster: Cluster) -> tuple[str, ...]:
    """Return all that a request might leave on vm2: endpoints, networks, namespaces, links."""
    agent = AgentDriver(cluster.hosts[1], 2)
    return (
        str(lasting_of(agent.get("/v1/endpoints")["endpoints"])),
        str([network["name"] for network in agent.get("/v1/networks")["networks"]]),
        cluster.ok(2, "ip", "netns"),
        cluster.ok(2, "ip", "-br", "link"),
        cluster.ok(2, "ip", "netns", "exec", "spare", "ip", "-br", "link"),
    )


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Iterator[Cluster]:
    """Add to the cluster one unattached namespace on vm2, and a foreign VXLAN device there."""
    cluster.ok(2, "ip", "netns", "add", "spare")
    foreign = "ip link add foreign type vxlan id 77 dstport 4789 local 192.168.56.12"
    cluster.ok(2, *foreign.split())
    other = "overlayd network create other --subnet 10.56.0.0/16 --internal"
    cluster.ok(2, *other.split())
    cluster.attach(2, "elsewhere", network="other")
    yield cluster
    cluster.run(2, "ip", "link", "del", "foreign")


def test_a_name_of_two_containers_detaches_neither(ready: Cluster) -> None:
    """A number may be a process id and a namespace's name: the kind must be given."""
    ready.ok(2, "ip", "netns", "add", "running")
    start = "ip netns exec running sleep 600 >/dev/null 2>&1 & echo $!"
    pid = ready.ok(2, "sh", "-c", start).strip()
    ready.ok(2, "overlayd", "attach", f"pid:{pid}", "--network", "blue", "--name", "process")
    ready.attach(2, pid, "--name", "named")
    code, _, err = ready.run(2, "overlayd", "detach", pid)

    def attached() -> set[str]:
        endpoints = ready.json(2, "endpoint", "ls")["endpoints"]
        return {each["target"] for each in endpoints} & {f"pid:{pid}", f"netns:{pid}"}

    assert (code, f"netns:{pid}, pid:{pid}" in err) == (6, True), err
    assert attached() == {f"pid:{pid}", f"netns:{pid}"}
    for target in (f"pid:{pid}", pid):
        ready.ok(2, "overlayd", "detach", target)
    assert attached() == set()
    ready.ok(2, "sh", "-c", f"kill {pid}; ip netns del {pid}; ip netns del running")


@pytest.mark.parametrize(
    ("command", "exit_code", "told"),
    [
        ("attach spare --network green", 5, "no network 'green'"),
        ("attach nobody --network blue", 5, "no container 'nobody'"),
        ("attach docker:nobody --network blue", 5, "Docker"),
        ("attach spare --network blue --ip 10.99.0.5", 2, "not an address of network blue"),
        ("attach spare --network blue --ip 10.32.0.1", 6, "cannot be given to a container"),
        ("attach spare --network blue --ip 10.32.255.255", 6, "cannot be given"),
        ("attach spare --network blue --ip 10.32.0.2", 6, "10.32.0.2 is in use"),
        ("attach spare --network blue --ip 10.32", 2, "not an IP address"),
        ("attach spare --network blue --mac 01:00:00:00:00:01", 2, "not a unicast address"),
        ("attach spare --network blue --mac 06:00:00:00:00:01", 2, "for the gateways of networks"),
        ("container add spare2 --network blue --mac 06:00:00:00:00:01", 2, "begin with 06"),
        ("attach spare --network blue --name c1", 6, "is taken on network blue"),
        ("attach spare --network blue --name C1", 6, "is taken on network blue"),
        ("attach spare --network other --network blue --name C1", 6, "is taken on network blue"),
        ("attach spare --network other --network green", 5, "no network 'green'"),
        ("attach spare --network blue --ifname much-too-long-a-name", 2, "interface"),
        ("attach spare --network blue --publish 99999:80", 2, "invalid port '99999:80'"),
        ("attach /nowhere --network blue", 5, "A target is"),
        ("network create bad --driver macvlan --parent no0 --subnet 10.50.0.0/16", 5, "no0"),
        ("attach pid:1 --network blue", 6, "host's own network namespace"),
        ("attach pid:999999 --network blue", 5, "999999"),
        ("network create blue --subnet 10.55.0.0/16", 6, "a different network 'blue' exists"),
        ("network create bad --subnet 192.168.56.0/24", 6, "overlaps a route of this host"),
        ("network create bad --subnet 10.50.0.1/16", 2, "an address within a subnet"),
        ("network create bad --subnet 10.50.0.0/32", 2, "too few addresses"),
        ("network create bad --subnet 10.50.0.0/16 --vni 77", 6, "VNI 77 is taken"),
        ("network create bad --subnet 10.50.0.0/16 --vni 16777216", 2, "16777215"),
        ("network create b@d --subnet 10.50.0.0/16", 2, "'b@d' is not a valid name"),
        ("network rm blue", 6, "in use"),
        ("network rm green", 5, "no network 'green'"),
        ("network inspect green", 5, "no network 'green'"),
        ("forget vm1", 6, "is alive"),
        ("forget vm9", 5, "no node 'vm9'"),
        ("container rm spare", 5, "no container 'spare'"),
        ("container add spare --network blue", 6, "already exists"),
        ("container add new --network blue --ip 10.32.0.2", 6, "10.32.0.2 is in use"),
        ("container add C1 --network other --network blue", 6, "is taken on network blue"),
        ("container add ov-0a1b2c-0d1e2f", 2, "cannot be a container's name"),
        ("join 192.168.56.11 --gossip-port 99999", 2, "port"),
        ("attach", 2, "TARGET"),
        ("no-such-verb", 2, "no-such-verb"),
    ],
)
def test_a_wrong_request_is_reported_and_changes_nothing(
    ready: Cluster, command: str, exit_code: int, told: str
) -> None:
    """The exit code fits, the message names the cause, stdout is empty, and nothing is left."""
    before = traces(ready)
    code, out, err = ready.run(2, "overlayd", *command.split())

    assert code == exit_code, err
    assert told.lower() in err.lower()
    assert err.startswith("error: ")
    assert out == ""
    assert traces(ready) == before


def test_force_overrides_an_overlapping_route(ready: Cluster) -> None:
    """With --force the network is created."""
    wish = ["network", "create", "forced", "--subnet", "192.168.56.0/24"]
    ready.ok(2, "overlayd", *wish, "--force")
    ready.ok(2, *["overlayd", "network", "rm", "forced"])


def test_without_an_agent_every_verb_says_so(ready: Cluster) -> None:
    """The exit code is 3, and the error has the next step."""
    code, out, err = ready.run(2, "overlayd", "--run-dir", "/run/nowhere", "status")

    assert (code, out) == (3, "")
    assert "overlayd join" in err


JOIN = "overlayd --state-dir /run/s2 --run-dir /run/r2 join"


@pytest.mark.parametrize(
    ("token", "arguments", "exit_code", "told"),
    [
        ("", "192.168.56.11 --token-file -", 2, "empty"),
        ("ovt1.AAAA", "192.168.56.11 --token-file -", 2, "cut short"),
        ("MISTYPED", "192.168.56.11 --token-file -", 2, "mistyped"),
        (None, "192.168.56.11", 2, "token"),
        (None, "192.168.56.11 --token-file /nowhere", 5, "token file /nowhere does not exist"),
        ("TOKEN", "192.168.56.11 --token-file - --underlay eth9", 2, "eth9"),
        ("TOKEN", "192.168.56.11 --token-file -", 6, "port 7948"),
    ],
)
def test_an_impossible_join_is_reported_and_adds_no_member(
    ready: Cluster, token: str | None, arguments: str, exit_code: int, told: str
) -> None:
    """A second agent on vm2 does not become a member by a wrong join."""
    text = token
    if token in {"TOKEN", "MISTYPED"}:
        text = ready.ok(1, "overlayd", "token", "show").strip()
    if token == "MISTYPED":
        assert text is not None
        text = text[:10] + ("A" if text[10] != "A" else "B") + text[11:]
    code, _, err = ready.run(2, *JOIN.split(), *arguments.split(), stdin=text or "")

    assert code == exit_code, err
    assert told in err
    status = ready.run(2, *JOIN.replace("join", "status").split())
    assert "not in a cluster" in status[1] + status[2] or status[0] == 3


@pytest.mark.parametrize(
    "other",
    [
        "--ip 10.32.0.50",
        "--mac 02:00:00:00:00:09",
        "--ifname eth7",
        "--name other",
        "--alias www",
        "--label team=a",
        "--no-port-security",
    ],
)
def test_attaching_again_with_other_options_is_a_conflict(ready: Cluster, other: str) -> None:
    """The error names the current value; with equal options, attach succeeds."""
    line = ["overlayd", "attach", "c2", "--network", "blue"]
    had = lasting_of(ready.json(2, "endpoint", "ls")["endpoints"])
    code, out, err = ready.run(2, *line, *other.split())

    assert (code, out) == (6, ""), err
    assert "with other options" in err
    assert "overlayd detach" in err
    ready.ok(2, *line, "--name", "c2")
    assert lasting_of(ready.json(2, "endpoint", "ls")["endpoints"]) == had


def test_a_record_that_a_container_hides_causes_a_warning(ready: Cluster) -> None:
    """The warning says that the name resolves to the container's address."""
    give = ["overlayd", "dns", "add", "c1", "192.0.2.9", "--network", "blue"]
    code, _, err = ready.run(1, *give)
    ready.ok(1, "overlayd", "dns", "rm", "c1", "--network", "blue")

    assert code == 0, err
    assert "a container on blue has that name" in err


def links_and_namespaces(cluster: Cluster) -> tuple[str, str]:
    """Return the links and the named namespaces of vm3."""
    return cluster.ok(3, "ip", "-br", "link"), cluster.ok(3, "ip", "netns")


def test_peers_that_do_not_answer_are_named(ready: Cluster) -> None:
    """No member answers a token of another cluster, and nobody is at the other address.

    After 20 seconds of silence the error has the addresses and the likely reasons.
    """
    ready.ok(3, "overlayd", "leave")
    before = links_and_namespaces(ready)
    foreign = str(Token(b"a" * 32, b"token-id", b"s" * 16, 7948, 4789))
    peers = ("192.168.56.11", "192.168.56.99")
    code, out, err = ready.run(3, "overlayd", "join", *peers, "--token-file", "-", stdin=foreign)

    assert (code, out) == (7, ""), err
    assert all(f"{peer} port 7948/udp" in err for peer in peers), err
    assert "token belongs to another cluster" in err
    assert "firewall" in err
    assert "not in a cluster" in ready.run(3, "overlayd", "status")[1]
    assert links_and_namespaces(ready) == before


def test_missing_capabilities_are_named(ready: Cluster) -> None:
    """An agent that may not create links names the missing capability."""
    ready.ok(3, "overlayd", "reset", "--yes")
    before = links_and_namespaces(ready)
    code, out, err = ready.run(
        3, "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin",
        "overlayd", "join",
    )  # fmt: skip

    assert (code, out) == (1, ""), err
    assert "CAP_NET_ADMIN" in err
    assert "sudo" in err
    assert links_and_namespaces(ready) == before
