"""encryption status, on, off and rotate."""

from __future__ import annotations

import json
from typing import Any

from tests.fake_agent import FakeAgent, Run

SHOWN: dict[str, Any] = {
    "schema": "overlayd.encryption-status/v1",
    "backend": "kernel",
    "why": None,
    "device": "wg-ovl",
    "device_missing": None,
    "address": "fd6f:766c::1",
    "port": 7949,
    "key_epoch": 3,
    "key_age_s": 61.0,
    "rotation": None,
    "networks": ["vault"],
    "switching": [],
    "clear_in": 0,
    "clear_out": 0,
    "peers": [],
}


def lines(overlayd: Run) -> list[str]:
    """Return what `encryption status` prints, with single blanks."""
    return [" ".join(line.split()) for line in overlayd("encryption", "status").out.splitlines()]


def test_status_shows_the_keys_epoch_and_age(overlayd: Run, agent: FakeAgent) -> None:
    """Without a rotation there is no line about one."""
    agent.answer("GET /v1/encryption", SHOWN)
    assert "Key epoch 3, made 1m 01s ago" in lines(overlayd)
    assert not [line for line in lines(overlayd) if line.startswith("Rotation")]


def test_status_says_why_there_is_no_device(overlayd: Run, agent: FakeAgent) -> None:
    """In the agent's words; one of before has none."""
    shown = SHOWN | {"device": None}
    agent.answer("GET /v1/encryption", shown | {"device_missing": "wireguard-go is missing"})
    assert "Device none: wireguard-go is missing" in lines(overlayd)
    agent.answer("GET /v1/encryption", {k: v for k, v in shown.items() if k != "device_missing"})
    assert "Device none" in lines(overlayd)


def test_status_names_what_a_rotation_waits_for(overlayd: Run, agent: FakeAgent) -> None:
    """The member and the reason."""
    rotation = {"step": "moving", "waiting_for": ["vm3: it has published no next key"]}
    agent.answer("GET /v1/encryption", SHOWN | {"rotation": rotation})
    assert "Rotation moving, waits for vm3: it has published no next key" in lines(overlayd)


def test_status_shows_since_when_a_peer_answers(overlayd: Run, agent: FakeAgent) -> None:
    """A peer that does not yet has no time, and one of an agent of before neither."""
    peer = {"node": "vm2", "networks": ["vault"], "address": "fd6f:766c::2", "key_epoch": 1,
            "device": "wg-ovl", "configured": True, "received": 5, "sent": 6}  # fmt: skip
    agent.answer("GET /v1/encryption", SHOWN | {"peers": [
        peer | {"since_s": 3600.0, "last_handshake_s": 3.0},
        peer | {"since_s": None, "last_handshake_s": None},
        peer | {"last_handshake_s": 3.0},
    ]})  # fmt: skip
    rows = [line.split("fd6f:766c::2 ")[1] for line in lines(overlayd)[-3:]]
    assert rows == ["1 1h 00m ago 3s ago 5 6", "1 - never 5 6", "1 - 3s ago 5 6"]


def test_rotate_prints_the_epoch_in_use(overlayd: Run, agent: FakeAgent) -> None:
    """Stderr names the epoch; --json prints the object."""
    done = {"schema": "overlayd.encryption-rotate/v1", "key_epoch": 2}
    agent.answer("POST /v1/encryption/rotate", done)

    shown = overlayd("encryption", "rotate").err
    assert shown == "this host's WireGuard key of epoch 2 is in use\n"
    assert json.loads(overlayd("encryption", "rotate", "--json").out) == done
    agent.fail("POST /v1/encryption/rotate", "timed-out", 504, why="vm3: it does not answer")
    assert overlayd("encryption", "rotate").code == 7


def test_status_names_what_a_switch_waits_for(overlayd: Run, agent: FakeAgent) -> None:
    """The network, the goal, this host's phase, and the member with the reason."""
    switching = {
        "network": "blue",
        "encrypted": True,
        "phase": "both",
        "waiting_for": ["vm3: its agent does not answer"],
    }
    agent.answer("GET /v1/encryption", SHOWN | {"switching": [switching]})
    shown = (
        "Switching blue: on, this host is in phase both, waits for vm3: its agent does not answer"
    )
    assert shown in lines(overlayd)


def test_on_and_off_name_each_network(overlayd: Run, agent: FakeAgent) -> None:
    """One that is as asked is left alone; --all takes overlays only, and --json has one a line."""
    done = {"schema": "overlayd.encryption-switch/v1", "network": "blue", "encrypted": True}
    agent.answer("POST /v1/encryption/switch", done | {"changed": True})
    assert overlayd("encryption", "on", "blue").err == (
        "network blue is encrypted on every host now\n"
    )
    assert agent.asked[-1].body == {"network": "blue", "encrypted": True}
    agent.answer("POST /v1/encryption/switch", done | {"changed": False})
    assert overlayd("encryption", "off", "blue").err == "network blue is in clear already\n"
    networks = [{"name": "a", "driver": "overlay"}, {"name": "b", "driver": "bridge"}]
    networks.append({"name": "c", "driver": "overlay"})
    agent.answer("GET /v1/networks", {"networks": networks})
    printed = overlayd("encryption", "on", "--all", "--json").out.splitlines()
    assert len([json.loads(line) for line in printed]) == 2
    assert overlayd("encryption", "on").code == 2
    assert overlayd("encryption", "on", "blue", "--all").code == 2
