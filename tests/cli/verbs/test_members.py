"""The list of members, and forget."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from overlay.cli.screen import watch
from overlay.cli.verbs.members import _data_path

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


@pytest.mark.parametrize(
    ("sending", "receiving", "told"),
    [
        ("ok", "ok", "ok"),
        ("unknown", "unknown", "unknown"),
        ("ok", "unknown", "from: unknown"),
        ("silent", "ok", "to: silent"),
        ("lost", "damaged", "to: lost, from: damaged"),
    ],
)
def test_a_path_is_ok_if_both_directions_are(sending: str, receiving: str, told: str) -> None:
    """A path that was not probed yet is neither ok nor lost."""
    sizes = {"size_carried": 1500, "size_expected": 1500}
    assert _data_path({"sending": sending, "receiving": receiving, **sizes}) == told


def test_members_of_one_name_are_told_apart(overlayd: Run, agent: FakeAgent) -> None:
    """A host that has joined anew is a new member, and forget needs the id of the former one."""
    row = {
        "address": "192.168.56.12", "since_s": 5.0, "incarnation": 1, "rtt_ms": None, "path": None,
        "version": "0.4.0", "self": False, "authority": False,
    }  # fmt: skip
    names = (("vm1", "n-1", "alive"), ("vm2", "n-2", "alive"), ("vm2", "n-3", "dead"))
    rows = [row | {"name": name, "id": node_id, "state": state} for name, node_id, state in names]
    agent.answer("GET /v1/members", {"schema": "overlayd.members/v1", "members": rows})

    shown = overlayd("members", "--no-header").out.splitlines()
    assert [line.split("  ")[0] for line in shown] == ["vm1", "vm2 (n-2)", "vm2 (n-3)"]


def test_members_are_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """Each node has a line; this one is marked, and unknown values are dashes."""
    own = {
        "id": "n-1", "name": "vm1", "address": "192.168.56.11", "state": "alive",
        "since_s": 61.0, "incarnation": 5, "rtt_ms": None, "path": None, "version": "0.1.0",
        "logs": {"behind": 2, "equal_s": 0.5, "versions": [
            {"scope": "cluster", "held": 3, "origin": 3}, {"scope": "blue", "held": 4, "origin": 6},
        ]},
        "self": True, "authority": True,
    }  # fmt: skip
    other = own | {
        "name": "vm2",
        "state": "suspect",
        "rtt_ms": 0.42,
        "path": {"sending": "lost", "receiving": "ok", "size_carried": 1500, "size_expected": 1500},
        "self": False,
        "authority": False,
    }
    cut = other | {"name": "vm3", "path": other["path"] | {"receiving": "lost"}}  # type: ignore[operator]
    answer = {"schema": "overlayd.members/v1", "members": [own, other, cut]}
    agent.answer("GET /v1/members", answer)

    assert overlayd("members").out.splitlines() == [
        "NODE   ADDRESS        STATE    SINCE   RTT     DATA      BEHIND  AUTHORITY",
        "vm1 *  192.168.56.11  alive    1m 01s  -       -         2       holder",
        "vm2    192.168.56.11  suspect  1m 01s  0.4 ms  to: lost  2       -",
        "vm3    192.168.56.11  suspect  1m 01s  0.4 ms  lost      2       -",
    ]
    assert len(overlayd("members", "--no-header").out.splitlines()) == 3
    assert "INCARNATION" in overlayd("members", "--wide").out
    assert "cluster 3/3, blue 4/6" in overlayd("members", "--wide").out
    assert json.loads(overlayd("members", "--json").out) == answer


def test_forget_sends_its_options(overlayd: Run, agent: FakeAgent) -> None:
    """All are off by default."""
    done = {"schema": "overlayd.forget/v1", "forgotten": "n-1"}
    agent.answer("POST /v1/forget", {**done, "networks_removed": 0, "networks_left": 0})
    default = {
        "node": "vm3",
        "powered_off": False,
        "ban": False,
        "remove_networks": False,
        "force": False,
    }

    assert overlayd("forget", "vm3").code == 0
    assert agent.asked[-1].body == default
    overlayd("forget", "vm3", "--powered-off")
    assert agent.asked[-1].body == {**default, "powered_off": True}
    overlayd("forget", "vm3", "--ban")
    assert agent.asked[-1].body == {**default, "ban": True}
    overlayd("forget", "vm3", "--remove-networks")
    assert agent.asked[-1].body == {**default, "remove_networks": True}
    overlayd("forget", "vm3", "--force")
    assert agent.asked[-1].body == {**default, "force": True}


def test_forget_offers_to_remove_networks(overlayd: Run, agent: FakeAgent) -> None:
    """The note names the command; with the option, it says what was removed."""
    done = {"schema": "overlayd.forget/v1", "forgotten": "n-1"}
    agent.answer("POST /v1/forget", {**done, "networks_removed": 0, "networks_left": 3})
    assert "sudo overlayd forget vm3 --remove-networks" in overlayd("forget", "vm3").err
    agent.answer("POST /v1/forget", {**done, "networks_removed": 2, "networks_left": 1})

    told = overlayd("forget", "vm3", "--remove-networks").err
    assert "removed 2 networks that it created" in told
    assert "1 network that it created stays in use" in told


def test_watched_members_are_one_object_a_line(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the agent ends, whose error is an object as well."""
    monkeypatch.setattr(watch, "INTERVAL_S", 0.01)
    listed = {"schema": "overlayd.members/v1", "members": []}
    agent.answer("GET /v1/members", listed)
    agent.last = "GET /v1/members"
    outcome = overlayd("members", "--watch", "--json")
    objects = [json.loads(line) for line in outcome.out.splitlines()]

    assert outcome.code == 3
    assert objects[0] == listed
    assert objects[-1]["schema"] == "overlayd.error/v1"
