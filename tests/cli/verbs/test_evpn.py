"""The commands of BGP EVPN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from overlay import limits

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fake_agent import FakeAgent, Run

STATUS: dict[str, Any] = {
    "schema": "overlayd.evpn-status/v1",
    "enabled": True,
    "source": "host",
    "stays_out": False,
    "lacks_password": False,
    "cluster": None,
    "ttl_hops": 0,
    "asn": 65000,
    "neighbors": [{"address": "10.0.0.1", "up": True}, {"address": "10.0.0.2", "up": False}],
    "vtep_prefixes": ["10.9.0.0/16"],
    "has_password": False,
    "settled": True,
    "frr": True,
    "supervised": True,
    "shadow": "ov-evpn-8a01be",
    "announced": 4,
    "refused_outside": {},
    "refused_over_limit": 0,
    "networks": [],
    "conflicts": [],
}
ENABLE = ("evpn", "enable", "--asn", "65000", "--neighbor", "10.0.0.1")


def test_enabling_sends_what_was_typed(overlayd: Run, agent: FakeAgent, tmp_path: Path) -> None:
    """The password comes from a file, and is shown nowhere."""
    agent.answer("POST /v1/evpn", {**STATUS, "changed": True})
    secret = tmp_path / "bgp"
    secret.write_text("hush-hush\n")
    secret.chmod(0o600)

    more = ("--neighbor", "10.0.0.2", "--vtep-prefix", "10.9.0.0/16")
    outcome = overlayd(*ENABLE, *more, "--password-file", str(secret))

    assert (outcome.code, outcome.err) == (0, "EVPN is enabled\n")
    assert agent.asked[0].body == {
        "asn": 65000,
        "neighbors": ["10.0.0.1", "10.0.0.2"],
        "vtep_prefixes": ["10.9.0.0/16"],
        "ttl_hops": 0,
        "password": "hush-hush",
    }
    assert "hush-hush" not in outcome.out


def test_enabling_without_a_session_is_degraded(
    overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4, and what the neighbors must do."""
    monkeypatch.setattr(limits, "EVPN_ENABLE_WAIT_S", 0.0)
    down = {**STATUS, "neighbors": [{"address": "10.0.0.1", "up": False}]}
    agent.answer("POST /v1/evpn", {**down, "changed": False})

    outcome = overlayd(*ENABLE)

    assert outcome.code == 4
    assert "EVPN was enabled already" in outcome.err
    assert "no BGP session is up yet" in outcome.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--asn", "many"), "--asn"),
        (("--password-file", "missing"), "password file missing does not exist"),
        (("--password-file", "empty"), "the password is empty"),
        (("--speed", "9"), "--speed"),
        (("web",), "web"),
    ],
)
def test_wrong_options_are_told(
    overlayd: Run,
    agent: FakeAgent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    told: str,
) -> None:
    """Before the agent is asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")

    outcome = overlayd(*ENABLE, *words)

    assert outcome.code in (2, 5)
    assert told in outcome.err
    assert agent.asked == []


def test_status_says_what_is_refused_and_where_conflicts_are(
    overlayd: Run, agent: FakeAgent
) -> None:
    """Each on its line, beside the networks."""
    conflict = {
        "network": "wide", "subject": "10.96.1.7", "vtep": "10.9.0.2", "endpoint": "web",
        "node": "vm1",
    }  # fmt: skip
    network = {
        "network": "wide", "vni": 4100, "here": False, "macs": 1, "addresses": 2, "vteps": 3
    }  # fmt: skip
    agent.answer("GET /v1/evpn", {
        **STATUS, "refused_outside": {"172.31.0.9": 2}, "refused_over_limit": 7,
        "conflicts": [conflict], "networks": [network], "supervised": False, "settled": False,
    })  # fmt: skip

    outcome = overlayd("evpn", "status")

    assert outcome.code == 0
    for text in (
        "10.0.0.1 up, 10.0.0.2 down",
        "2 from 172.31.0.9; 7 over the limit",
        "10.96.1.7 on wide: the fabric has it at 10.9.0.2, the cluster as web on vm1",
        "nothing starts it again",
        "kept until a session is up",
        "wide     4100  no    1     2          3",
    ):
        assert text in outcome.out


def test_status_of_a_host_without_evpn(overlayd: Run, agent: FakeAgent) -> None:
    """One line, with the command that enables it."""
    agent.answer("GET /v1/evpn", {**STATUS, "enabled": False})

    assert overlayd("evpn", "status").out == (
        "EVPN  disabled; to enable it: sudo overlayd evpn enable --help\n"
    )


CLUSTER = {
    "asn": 65000, "neighbors": ["10.0.0.1"], "vtep_prefixes": ["10.9.0.0/16"], "ttl_hops": 1,
    "needs_password": True, "writer": "vm2",
}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"source": "cluster", "ttl_hops": 1}, "of the cluster, as vm2 wrote them"),
        ({}, "of this host, in place of the cluster's"),
        ({"ttl_hops": 1, "has_password": True}, "up, 10.0.0.2 down, by password, at most 1 hops"),
        ({"enabled": False, "stays_out": True}, "disabled on this host; the cluster has AS 65000"),
        ({"enabled": False, "lacks_password": True}, "the cluster's settings need a password"),
    ],
)
def test_status_says_whose_settings_it_uses(
    overlayd: Run, agent: FakeAgent, state: dict[str, Any], text: str
) -> None:
    """The cluster's, this host's own, or none, and why."""
    agent.answer("GET /v1/evpn", {**STATUS, "cluster": CLUSTER, **state})

    assert text in overlayd("evpn", "status").out


def test_the_cluster_is_enabled_by_one_command(overlayd: Run, agent: FakeAgent) -> None:
    """Its record is written, and removed; it needs all settings."""
    agent.answer("POST /v1/evpn/cluster", {**STATUS, "changed": True})
    agent.answer("DELETE /v1/evpn/cluster", {"schema": "x", "disabled": True})

    assert overlayd(*ENABLE, "--cluster", "--ttl-security", "2").code == 0
    assert overlayd("evpn", "disable", "--cluster").code == 0
    outcome = overlayd("evpn", "enable", "--cluster")

    assert agent.asked[0].body["ttl_hops"] == 2
    assert outcome.code == 2
    assert "--cluster requires --asn" in outcome.err


def test_disabling_twice_is_no_error(overlayd: Run, agent: FakeAgent) -> None:
    """The second time there is nothing to do."""
    agent.answer("DELETE /v1/evpn", {"schema": "overlayd.evpn-disable/v1", "disabled": False})

    outcome = overlayd("evpn", "disable")

    assert (outcome.code, outcome.err) == (0, "EVPN was not enabled; nothing to do\n")


def test_all_endpoints_show_their_origin(overlayd: Run, agent: FakeAgent) -> None:
    """The fabric's entries follow the cluster's, each with its VTEP."""
    outside = {
        "network": "wide", "vni": 4100, "ips": ["10.96.200.2"], "mac": "02:00:00:00:02:02",
        "vtep": "10.9.0.2", "origin": "evpn",
    }  # fmt: skip
    agent.answer("GET /v1/endpoints", {
        "schema": "overlayd.endpoint-ls/v1", "endpoints": [], "elsewhere": []
    })  # fmt: skip
    agent.answer("GET /v1/evpn/endpoints", {"endpoints": [outside], "more": 0})

    outcome = overlayd("endpoint", "ls", "--all")

    assert "10.96.200.2" in outcome.out
    assert "evpn 10.9.0.2" in outcome.out
    assert "no endpoints" in overlayd("endpoint", "ls").err


def test_a_network_is_exported_by_an_option(overlayd: Run, agent: FakeAgent) -> None:
    """The field is sent only with the option: an older agent does not know it."""
    overlayd("network", "create", "wide", "--evpn", "--vni", "4100")
    overlayd("network", "create", "blue")

    assert [each.body.get("evpn") for each in agent.asked] == [True, None]


def test_running_without_frr_names_its_package(
    overlayd: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As `evpn enable` does."""
    from overlay.kernel.evpn import frr  # noqa: PLC0415 - as the verb does

    monkeypatch.setattr(frr, "PROGRAMS", tmp_path)

    outcome = overlayd("evpn", "run")

    assert outcome.code == 1
    assert "FRR is missing" in outcome.err
    assert "apt install frr" in outcome.err
