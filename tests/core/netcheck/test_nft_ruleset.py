"""Rules as `nft -j list ruleset` shows them, compared with overlayd's packets."""

from __future__ import annotations

from typing import Any

import pytest
from overlay.core.netcheck.nft_ruleset import nft_chains
from overlay.core.netcheck.packet_filter import Obstacle, Packet, find_obstacle

VXLAN_IN = Packet(True, "192.168.56.12", "192.168.56.11", "eth1", 4789, 150)
LARGE_IN = VXLAN_IN._replace(size=1500)
OUT = Packet(False, "192.168.56.11", "192.168.56.12", "eth1", 4789, 150)
DROP: dict[str, Any] = {"drop": None}
ACCEPT: dict[str, Any] = {"accept": None}


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    """Return a match expression."""
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    """Return a payload expression."""
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> dict[str, Any]:
    """Return a meta expression."""
    return {"meta": {"key": key}}


DPORT = payload("udp", "dport")


def ruleset(
    *rules: list[dict[str, Any]], policy: str = "accept", hook: str = "input", table: str = "t"
) -> list[dict[str, Any]]:
    """Return a table with one base chain."""
    where = {"family": "inet", "table": table}
    base = {**where, "name": "c", "handle": 1, "type": "filter", "hook": hook, "prio": 0}
    listed: list[dict[str, Any]] = [{"chain": {**base, "policy": policy}}]
    return listed + [
        {"rule": {**where, "chain": "c", "handle": 10 + number, "expr": rule}}
        for number, rule in enumerate(rules)
    ]


def obstacle(listed: list[dict[str, Any]], packet: Packet = VXLAN_IN) -> Obstacle | None:
    """Return what drops a packet."""
    return find_obstacle(nft_chains(listed, {}, packet, without_iptables=False), packet)


@pytest.mark.parametrize(
    "expr",
    [
        [match(DPORT, 4789)],
        [match(payload("th", "dport"), {"set": [53, 4789]})],
        [match(DPORT, {"range": [4000, 5000]})],
        [match(DPORT, 53, "!=")],
        [match(payload("ip", "saddr"), "192.168.56.12")],
        [match(payload("ip", "saddr"), {"prefix": {"addr": "192.168.56.0", "len": 24}})],
        [match(meta("iifname"), "eth*"), match(meta("l4proto"), "udp")],
        [match(meta("length"), 100, ">")],
        [{"counter": {"packets": 0, "bytes": 0}}, {"log": None}],
    ],
)
def test_a_rule_that_matches_drops(expr: list[dict[str, Any]]) -> None:
    """The rule is named, with a command that deletes it."""
    found = obstacle(ruleset([*expr, DROP]))

    assert found is not None
    assert found.certain
    assert "inet t c" in found.where
    assert found.remedy == "nft delete rule inet t c handle 10"


@pytest.mark.parametrize(
    "expr",
    [
        [match(DPORT, 53)],
        [match(payload("tcp", "dport"), 4789)],
        [match(payload("ip6", "saddr"), "fd00::1")],
        [match(payload("ip", "saddr"), {"prefix": {"addr": "10.0.0.0", "len": 8}})],
        [match(meta("iifname"), "lo")],
        [match(meta("oifname"), "eth1")],
        [match({"ct": {"key": "state"}}, "invalid", "in")],
        [match(meta("length"), 1400, ">")],
    ],
)
def test_a_rule_about_something_else_does_not(expr: list[dict[str, Any]]) -> None:
    """Other ports, protocols, addresses, interfaces, states and sizes."""
    assert obstacle(ruleset([*expr, DROP])) is None


def test_a_limit_of_size_drops_large_packets() -> None:
    """The same rule lets small ones pass."""
    listed = ruleset([match(meta("length"), 1400, ">"), match(DPORT, 4789), DROP])

    assert obstacle(listed) is None
    assert obstacle(listed, LARGE_IN) is not None


def test_an_unknown_match_may_drop() -> None:
    """It is not certain."""
    found = obstacle(ruleset([{"limit": {"rate": 5}}, DROP]))

    assert found is not None
    assert not found.certain


def test_an_accepted_packet_meets_no_policy() -> None:
    """Of this chain; the next one may drop it all the same."""
    accepting = ruleset([match(DPORT, 4789), ACCEPT], policy="drop")
    other = ruleset([match(DPORT, 4789), DROP], table="u")

    assert obstacle(accepting) is None
    assert obstacle([*accepting, *other]) is not None


def test_a_policy_is_an_obstacle() -> None:
    """Named as such, with a rule that would accept."""
    found = obstacle(ruleset(policy="drop"))

    assert found is not None
    assert found.where == "the policy of nft chain inet t c"
    assert found.remedy == "nft insert rule inet t c udp dport 4789 accept"


def test_established_connections_are_no_help() -> None:
    """Overlayd's packets are not tracked."""
    known = match({"ct": {"key": "state"}}, ["established", "related"], "in")

    assert obstacle(ruleset([known, ACCEPT], policy="drop")) is not None


def test_chains_of_the_other_direction_do_not_count() -> None:
    """Packets that arrive do not pass the hook of those that are sent."""
    listed = ruleset([match(DPORT, 4789), DROP], hook="output")

    assert obstacle(listed) is None
    assert obstacle(listed, OUT) is not None


def test_zones_of_firewalld_are_followed() -> None:
    """A map of interfaces to chains, and a rejection at the end."""
    where = {"family": "inet", "table": "firewalld"}
    listed: list[dict[str, Any]] = [
        {"chain": {**where, "name": "filter_INPUT", "hook": "input", "prio": 10}},
        {"chain": {**where, "name": "zones"}},
        {"chain": {**where, "name": "public"}},
        {"rule": {**where, "chain": "filter_INPUT", "handle": 5, "expr": [
            {"jump": {"target": "zones"}}]}},
        {"rule": {**where, "chain": "filter_INPUT", "handle": 6, "expr": [
            {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]}},
        {"rule": {**where, "chain": "zones", "handle": 7, "expr": [
            {"vmap": {"key": meta("iifname"), "data": {"set": [
                ["eth0", {"goto": {"target": "nowhere"}}], ["eth1", {"goto": {"target": "public"}}],
            ]}}}]}},
    ]  # fmt: skip
    found = obstacle(listed)

    assert found is not None
    assert found.certain
    assert found.remedy.startswith("firewall-cmd --permanent --add-port=4789/udp")
    allow = {"rule": {**where, "chain": "public", "handle": 8, "expr": [
        match(DPORT, 4789), ACCEPT]}}  # fmt: skip
    assert obstacle([*listed, allow]) is None


def test_named_sets_are_looked_up() -> None:
    """Elements with comments or times included."""
    elements = [{"elem": {"val": "192.168.56.12", "comment": "x"}}]
    listed = ruleset([match(payload("ip", "saddr"), "@bad"), DROP])
    listed.append({"set": {"family": "inet", "table": "t", "name": "bad", "elem": elements}})

    assert obstacle(listed) is not None


def test_overlayds_own_tables_are_left_out() -> None:
    """They drop strangers' packets, and the agent checks them itself."""
    assert obstacle(ruleset([match(DPORT, 4789), DROP], table="overlayd_ab12cd")) is None
