"""Parsing and resolving the peers of `join`."""

from __future__ import annotations

import asyncio
import socket

import pytest
from overlay.agent.gossip.join_request import (
    JoinSpec,
    clock_error,
    default_name,
    next_name,
    no_answer_error,
    ports_of_new_cluster,
    resolve,
    split_peer,
)
from overlay.errors import UsageError
from overlay.model import ip_text, parse_ip, valid_name


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", 7948),
        ("10.0.0.1:9", "10.0.0.1", 9),
        ("vm1.lab", "vm1.lab", 7948),
        ("fd00::1", "fd00::1", 7948),
        ("[fd00::1]:9", "fd00::1", 9),
        ("[fd00::1]", "fd00::1", 7948),
    ],
)
def test_peers_are_hosts_with_or_without_a_port(text: str, host: str, port: int) -> None:
    """The usual notations of a host and a port are accepted."""
    assert split_peer(text, 7948) == (host, port)


@pytest.mark.parametrize("text", ["", "a b", "10.0.0.1:x", "10.0.0.1:0", "x:70000", "u@h"])
def test_an_invalid_peer_is_refused(text: str) -> None:
    """An invalid peer is a usage error, without any wait."""
    with pytest.raises(UsageError):
        split_peer(text, 7948)


@pytest.mark.parametrize(
    ("host", "node"),
    [
        ("VM1.example.org", "vm1"),
        ("x" * 64, "x" * 63),
        ("Ann's PC", "ann-s-pc"),
        ("\u00fc", "node"),
        ("", "node"),
    ],
)
def test_any_host_name_becomes_a_valid_node_name(
    monkeypatch: pytest.MonkeyPatch, host: str, node: str
) -> None:
    """The kernel accepts any 64 bytes, but peers refuse a card with an invalid name."""
    monkeypatch.setattr(socket, "gethostname", lambda: host)

    assert default_name() == node


async def test_addresses_resolve_to_seeds() -> None:
    """A literal address is its own seed."""
    (seed,) = await resolve(["127.0.0.1:9"], 7948)

    assert (seed.address, seed.port) == (parse_ip("127.0.0.1"), 9)


@pytest.mark.parametrize("peer", ["\x9b", "a" * 64 + ".example", "a\x00b", "..", "é" * 300])
async def test_a_name_invalid_in_dns_is_refused(peer: str) -> None:
    """A name that the resolver refuses is a usage error, not a defect."""
    with pytest.raises(UsageError):
        await resolve([peer], 7948)


async def test_a_join_without_answer_explains_why() -> None:
    """The error for no answer names the address and all three likely reasons."""
    seeds = await resolve(["127.0.0.1"], 7948)

    text = str(no_answer_error(seeds, 20.0))

    assert "127.0.0.1 port 7948/udp" in text
    assert "firewall" in text
    assert "token" in text


async def test_each_address_of_a_name_is_a_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All addresses of a name are seeds; a name that fails is ignored if another resolves."""
    loop = asyncio.get_running_loop()

    async def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host != "seeds.example":
            raise OSError(-2, "Name or service not known")
        return [(2, 2, 17, "", (f"192.0.2.{last}", port)) for last in (1, 2, 3)]

    monkeypatch.setattr(loop, "getaddrinfo", lookup)
    seeds = await resolve(["nowhere.example", "seeds.example:9"], 7948)

    assert [(ip_text(seed.address), seed.port) for seed in seeds] == [
        ("192.0.2.1", 9), ("192.0.2.2", 9), ("192.0.2.3", 9),
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"none of the peers has an address"):
        await resolve(["nowhere.example"], 7948)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (JoinSpec(vxlan_port=7948), "vxlan_port"),
        (JoinSpec(gossip_port=4789), "gossip_port"),
        (JoinSpec(gossip_port=5000, vxlan_port=5000), "vxlan_port"),
    ],
)
def test_equal_ports_of_a_new_cluster_are_refused(spec: JoinSpec, field: str) -> None:
    """Also where one of them is a default; the error has all three parts."""
    with pytest.raises(UsageError, match="cannot both use UDP port") as caught:
        ports_of_new_cluster(spec)

    assert caught.value.field == field
    assert caught.value.why
    assert "--vxlan-port" in caught.value.hint


def test_ports_of_a_new_cluster_default_independently() -> None:
    """A chosen port leaves the other at its default; ports may be swapped."""
    assert ports_of_new_cluster(JoinSpec()) == (7948, 4789)
    assert ports_of_new_cluster(JoinSpec(vxlan_port=8472)) == (7948, 8472)
    assert ports_of_new_cluster(JoinSpec(gossip_port=4789, vxlan_port=7948)) == (4789, 7948)


@pytest.mark.parametrize(
    ("taken", "proposed"),
    [
        ("vm1", "vm1-2"),
        ("vm1-2", "vm1-3"),
        ("web-9", "web-10"),
        ("rack-7.lab", "rack-7.lab-2"),
        ("a" * 63, "a" * 61 + "-2"),
        ("db-20261128", "db-20261128-2"),
    ],
)
def test_the_name_proposed_for_a_taken_one_is_valid(taken: str, proposed: str) -> None:
    """It counts up, and has the length of a name."""
    assert next_name(taken) == proposed
    assert valid_name(proposed)


@pytest.mark.parametrize(
    ("ahead_s", "told"),
    [
        (-172_500.0, "at least 2 days behind the cluster's"),
        (-86_500.0, "at least 1 day behind the cluster's"),
        (95 * 86_400.0, "at least 95 days ahead of the cluster's"),
    ],
)
def test_a_clock_that_is_off_is_told_in_days(ahead_s: float, told: str) -> None:
    """The error says by how much, in which direction, and what to do."""
    error = clock_error(ahead_s)

    assert told in error.what
    assert "timedatectl" in error.hint
