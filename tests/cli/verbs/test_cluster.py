"""Commands join, leave, members and forget."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli import output
from overlay.cli.verbs import cluster

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

TOKEN = "ovt1.AAAAexample"


@pytest.fixture
def joined() -> dict[str, Any]:
    """Return the answer to a join that created a cluster."""
    return {
        "schema": "overlayd.join/v1",
        "created": True,
        "already": False,
        "cluster": "7f3a9c21",
        "via": None,
        "node": {
            "id": "n-8a01beef",
            "name": "vm1",
            "epoch": 1,
            "address": "192.168.56.11",
            "interface": "eth1",
            "underlay_mtu": 1500,
        },
        "vxlan_port": 4789,
        "gossip_port": 7948,
        "overlay_mtu": 1450,
        "members": 1,
        "networks": 0,
        "endpoints": 0,
        "elapsed_ms": 41.2,
        "next": "sudo overlayd join 192.168.56.11 --token-file FILE",
    }


def test_joining_again_warns_about_options_without_effect(
    overlayd: Run, agent: FakeAgent, joined: dict[str, Any]
) -> None:
    """Another name or port causes a warning; the current values do not."""
    agent.answer("POST /v1/join", joined | {"created": False, "already": True})
    node = joined["node"]

    other = overlayd("join", "--name", "other", "--vxlan-port", "4000")
    assert other.code == 0
    assert "--name other, --vxlan-port 4000 has no effect" in other.err
    same = overlayd("join", "--name", node["name"], "--underlay", node["address"])
    assert "no effect" not in same.err


def test_the_first_join_prints_the_command_for_others(
    overlayd: Run, agent: FakeAgent, joined: dict[str, Any]
) -> None:
    """The output is one line on this node, then the command for the other hosts."""
    agent.answer("POST /v1/join", joined)
    outcome = overlayd("join")

    assert outcome.code == 0
    assert outcome.out == (
        "node vm1 (n-8a01beef) up: underlay 192.168.56.11 on eth1, mtu 1500 -> overlay mtu 1450,"
        " vxlan 4789/udp, gossip 7948/udp\n"
        "created cluster 7f3a9c21; join other hosts with:\n"
        "  sudo overlayd join 192.168.56.11 --token-file FILE\n"
        "where FILE contains the output of: sudo overlayd token show\n"
    )
    assert agent.asked[-1].body == {
        "peers": [],
        "token": None,
        "underlay": None,
        "name": None,
        "vxlan_port": None,
        "gossip_port": None,
    }


def test_a_join_sends_peers_token_and_choices(
    overlayd: Run, agent: FakeAgent, joined: dict[str, Any], tmp_path: Path
) -> None:
    """Every option reaches the agent, and the token is read from its file."""
    joined |= {"created": False, "via": "192.168.56.11", "members": 3, "networks": 1}
    agent.answer("POST /v1/join", joined)
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    outcome = overlayd(
        "join", "192.168.56.11", "vm3:7000", "--token-file", str(path), "--underlay", "eth1",
        "--name", "vm2", "--vxlan-port", "4790", "--gossip-port", "7950",
    )  # fmt: skip

    assert outcome.out.splitlines()[1] == (
        "joined cluster 7f3a9c21 via 192.168.56.11: 3 nodes, 1 network, 0 endpoints (41 ms)"
    )
    assert agent.asked[-1].body == {
        "peers": ["192.168.56.11", "vm3:7000"],
        "token": TOKEN,
        "underlay": "eth1",
        "name": "vm2",
        "vxlan_port": 4790,
        "gossip_port": 7950,
    }


def test_joining_again_says_so(overlayd: Run, agent: FakeAgent, joined: dict[str, Any]) -> None:
    """A repeated join succeeds, and the output says that this host is a member already."""
    agent.answer("POST /v1/join", joined | {"created": False, "already": True})

    assert "already a member of cluster 7f3a9c21: 1 node" in overlayd("join").out


def test_a_token_as_an_argument_is_refused_locally(overlayd: Run, agent: FakeAgent) -> None:
    """A token on the command line is a usage error, and no request is sent."""
    assert overlayd("join", "192.168.56.11", TOKEN).code == 2
    assert agent.asked == []


def test_a_bad_token_file_starts_no_agent(overlayd: Run, tmp_path: Path) -> None:
    """The token is read before the agent is started."""
    outcome = overlayd("join", "192.168.56.11", "--token-file", str(tmp_path / "none"))

    assert outcome.code == 5
    assert not (tmp_path / "run").exists()


def test_a_join_that_takes_long_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall costs 20 s of silence otherwise. One without a peer waits for nobody."""
    notes: list[str] = []
    said = threading.Event()

    class Waiting:
        def post(self, _path: str, _body: dict[str, Any]) -> dict[str, Any]:
            return {"said": said.wait(60.0)}

    def note(text: str) -> None:
        notes.append(text)
        said.set()

    monkeypatch.setattr(cluster, "PATIENCE_S", 0.0)
    monkeypatch.setattr(output, "print_note", note)
    client: Any = Waiting()

    assert cluster._post_join(client, {"peers": ["192.168.56.11", "vm2"]})["said"]
    assert notes == ["waiting for 192.168.56.11 or vm2 (at most 20 s for an answer)"]
    cluster._post_join(client, {"peers": []})
    assert len(notes) == 1


def test_leave_names_the_reset_command(overlayd: Run, agent: FakeAgent) -> None:
    """After leaving, stderr names the command that removes all traces."""
    agent.answer("POST /v1/leave", {"schema": "overlayd.leave/v1", "left": True, "withdrawn": 2})
    outcome = overlayd("leave")
    assert agent.asked[-1].body == {"force": False}

    assert (outcome.code, outcome.out) == (0, "")
    assert "left the cluster; " in outcome.err
    assert "overlayd reset" in outcome.err


def test_leaving_twice_is_no_error(overlayd: Run, agent: FakeAgent) -> None:
    """`overlayd leave && apt-get purge overlayd` works on a host that has left already."""
    agent.answer("POST /v1/leave", {"schema": "overlayd.leave/v1", "left": False, "withdrawn": 0})
    outcome = overlayd("leave")

    assert outcome.code == 0
    assert "this host was in no cluster; " in outcome.err
