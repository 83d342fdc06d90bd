"""Admission with real agents: tokens, holders of the authority, banned identities."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import InvalidTag
from overlay.core.protocol.records import KeyId
from overlay.model import NodeId
from overlay.wire.codec import datagram
from overlay.wire.codec.contact_header import join_header
from overlay.wire.codec.datagram import read_kind
from overlay.wire.codec.session_header import read_data_header
from overlay.wire.handshake.box import derive, seal
from overlay.wire.handshake.cookies import mac, receiver_key
from overlay.wire.handshake.noise import nonce
from overlay.wire.identity.token import Token

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
VM1, VM2 = "192.168.56.11", "192.168.56.12"


def join(hosts: Cluster, number: int, peer: str, token: str) -> tuple[int, str]:
    """Join through a peer with a token; return exit code and stderr."""
    code, _, err = hosts.run(number, "overlayd", "join", peer, "--token-file", "-", stdin=token)
    return code, err


def create(hosts: Cluster, number: int, *options: str) -> str:
    """Make a token on a host."""
    return hosts.ok(number, "overlayd", "token", "create", *options).strip()


def keep_apart(hosts: Cluster, number: int) -> None:
    """Configure a host so that it gives the authority to nobody by itself."""
    path = "/etc/overlayd/overlayd.toml"
    hosts.ok(number, "sh", "-c", f"mkdir -p /etc/overlayd; echo authority_holders = 1 >{path}")


def members(hosts: Cluster, number: int) -> dict[str, dict[str, Any]]:
    """Return by name the members that have not left, as one host sees them."""
    shown = hosts.json(number, "members")["members"]
    return {one["name"]: one for one in shown if one["state"] != "left"}


def kill(hosts: Cluster, number: int) -> None:
    """End a host's agent at once."""
    hosts.ok(number, "bash", "-c", "kill -9 $(pgrep -f '[o]verlay.cli.main agent')")


@pytest.fixture(scope="module")
def pair(hosts: Cluster) -> Cluster:
    """Two members, vm1 the one holder of the authority; vm3 is outside."""
    for number in (1, 2, 3):
        keep_apart(hosts, number)
    hosts.ok(1, "overlayd", "join")
    code, err = join(hosts, 2, VM1, hosts.ok(1, "overlayd", "token", "show"))
    waits = f"waiting for {VM1} "  # said on a slow machine
    assert (code, [each for each in err.splitlines() if not each.startswith(waits)]) == (
        0,
        ["agent started"],
    )
    return hosts


def test_the_first_host_holds_the_authority(pair: Cluster) -> None:
    """`members` shows it on every host, and only it creates tokens."""
    for number in (1, 2):
        seen = members(pair, number)
        assert (seen["vm1"]["authority"], seen["vm2"]["authority"]) == (True, False)
    code, _, err = pair.run(2, "overlayd", "token", "create")

    assert code == 6
    assert "vm1" in err


@pytest.mark.parametrize("peer", [VM1, VM2])
def test_an_expired_token_is_refused(
    pair: Cluster, peer: str, eventually: Callable[..., None]
) -> None:
    """The holder and any other member refuse it, and the error gives the reason."""
    token = create(pair, 1, "--expires", "1s", "--label", f"short{peer}")

    def expired() -> bool:
        listed = pair.json(2, "token", "ls")["tokens"]
        return any((one["label"], one["state"]) == (f"short{peer}", "expired") for one in listed)

    eventually(expired, "the token's end, known to every member")
    code, err = join(pair, 3, peer, token)
    assert code == 1
    assert "the token has expired" in err


@pytest.mark.parametrize("peer", [VM1, VM2])
def test_a_revoked_token_is_refused(pair: Cluster, peer: str) -> None:
    """A token is refused as soon as it is revoked."""
    token = create(pair, 1)
    pair.ok(1, "overlayd", "token", "revoke", Token.parse(token).token_id.hex())
    code, err = join(pair, 3, peer, token)

    assert code == 1
    assert "the token was revoked" in err


def test_a_token_is_never_shown_again(pair: Cluster) -> None:
    """Neither lists, logs nor a member's state contain a token's secret."""
    token = create(pair, 1, "--label", "secret")
    secret = Token.parse(token).secret
    shown = pair.ok(1, "overlayd", "token", "ls", "--json") + pair.ok(1, "overlayd", "events")
    shown += pair.ok(1, "cat", "/run/overlayd/agent.log")

    assert token not in shown
    assert secret.hex() not in shown
    assert pair.run(2, "grep", "-rqi", secret.hex(), "/var/lib/overlayd")[0] == 1


def test_a_token_admits_only_as_many_hosts_as_its_uses(pair: Cluster) -> None:
    """A join through a member without authority is forwarded; the second host is refused."""
    token = create(pair, 1, "--uses", "1", "--label", "once")
    code, err = join(pair, 3, VM2, token)
    assert code == 0, err
    (once,) = [one for one in pair.json(2, "token", "ls")["tokens"] if one["label"] == "once"]
    assert (once["uses"], once["state"], once["nodes"]) == (1, "used-up", ["vm3"])
    pair.ok(3, "overlayd", "reset", "--yes")
    code, err = join(pair, 3, VM2, token)

    assert code == 1
    assert "the token is used up" in err


def test_a_stolen_token_reads_and_forges_nothing(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """The keys of a valid token open no datagram, and datagrams sealed with them are dropped."""
    token = Token.parse(create(pair, 1))
    keys = [
        derive(secret, b"", info)
        for secret in (token.secret, token.secret * 2, token.join_key, token.ticket, token.verifier)
        for info in (b"overlayd/2 join", b"overlayd/1 knock", b"overlayd/1 admit")
    ]
    heard = capture(pair, 1, count=4)
    cluster_id = bytes.fromhex(pair.json(1, "status")["cluster"]["id"])
    assert token.cluster_id.startswith(cluster_id)
    assert len(heard) >= 4
    for data in heard:
        assert read_kind(data) == datagram.DATA
        _, counter = read_data_header(data)
        for key in keys:
            for context in (data[:16], data[:16] + token.cluster_id, b""):
                with pytest.raises(InvalidTag):
                    key.decrypt(nonce(counter), data[16:], context)

    def drops() -> int:
        counted: dict[str, int] = pair.json(1, "status")["drops"]
        return counted.get("unknown-generation", 0) + counted.get("unauthenticated", 0)

    before, view = drops(), members(pair, 1)
    sender = NodeId(b"s" * 16)
    macs = receiver_key(token.cluster_id)  # the thief knows the cluster's id
    forged = []
    for key in keys:
        header = join_header(KeyId(0, 0), sender, os.urandom)
        data = seal(key, header, token.cluster_id + bytes(16), b"\x94\x01\x07" + bytes(17))
        forged.append(data + mac(macs, data) + bytes(16))
    say(pair, 3, VM1, forged)

    eventually(lambda: drops() >= before + len(forged), "the forged datagrams were dropped")
    assert members(pair, 1).keys() == view.keys()


def capture(hosts: Cluster, number: int, *, count: int) -> list[bytes]:
    """Return the next gossip datagrams that pass a host's underlay."""
    hosts.run(
        number, "timeout", "60", "tcpdump", "-Z", "root", "-U", "-i", "eth1", "-c", str(count),
        "-w", "/run/gossip.pcap", "udp port 7948",
    )  # fmt: skip
    raw = bytes.fromhex(hosts.ok(number, "xxd", "-p", "/run/gossip.pcap").replace("\n", ""))
    found, at = [], 24  # the file's header; each packet has a header of 16 bytes
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at + 8)
        found.append(raw[at + 16 + 14 + 20 + 8 : at + 16 + size])
        at += 16 + size
    return found


def say(hosts: Cluster, number: int, address: str, datagrams: list[bytes]) -> None:
    """Send datagrams from a host."""
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for line in sys.stdin: s.sendto(bytes.fromhex(line), (sys.argv[1], 7948))\n"
    )
    lines = "".join(data.hex() + "\n" for data in datagrams)
    code, _, err = hosts.run(number, sys.executable, "-c", program, address, stdin=lines)
    assert code == 0, err


def test_without_a_holder_only_admission_stops(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """A member names the missing holder; the cluster itself keeps working."""
    token = create(pair, 1)
    eventually(
        lambda: (
            len(pair.json(2, "token", "ls")["tokens"]) == len(pair.json(1, "token", "ls")["tokens"])
        ),
        "the token's record on vm2",
    )
    kill(pair, 1)
    code, err = join(pair, 3, VM2, token)
    pair.ok(2, "overlayd", "network", "create", "blue", "--subnet", "10.32.0.0/16")
    assert pair.attach(2, "alone")
    pair.ok(1, "overlayd", "join")

    assert code == 6
    assert "vm2 answered, but no host that can admit a new one" in err
    eventually(lambda: members(pair, 2)["vm1"]["state"] == "alive", "vm1 back")


def test_after_promote_the_first_host_is_not_needed(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """vm2 is promoted, vm1 dies, and vm3 joins with a token that vm1 created."""
    token = create(pair, 1, "--label", "of-vm1")
    pair.ok(1, "overlayd", "promote", "vm2")
    assert members(pair, 1)["vm2"]["authority"]
    assert pair.run(1, "overlayd", "promote", "vm2")[2] == (
        "vm2 already held the cluster's authority\n"
    )
    kill(pair, 1)
    code, err = join(pair, 3, VM2, token)
    assert code == 0, err
    assert create(pair, 2).startswith("ovt1.")
    pair.ok(1, "overlayd", "join")

    for number in (1, 2, 3):
        eventually(
            lambda number=number: (
                [one["state"] for one in members(pair, number).values()] == ["alive"] * 3
            ),
            "all three alive everywhere",
        )


def test_admission_state_survives_a_restart_of_all_agents(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """Certificates, tokens and the authority are kept on disk."""
    for number in (1, 2, 3):
        kill(pair, number)
    for number in (1, 2, 3):
        pair.ok(number, "overlayd", "join")

    def back() -> bool:
        seen = [members(pair, number).values() for number in (1, 2, 3)]
        return all(
            [one["state"] for one in view] == ["alive"] * 3
            and sum(one["authority"] for one in view) == 2
            for view in seen
        )

    eventually(back, "three members, two holders, on every host")


def test_a_banned_node_is_excluded_at_once_and_permanently(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """Every member refuses its identity, with and without a token, and the node reports that."""
    assert pair.run(1, "overlayd", "forget", "vm3")[0] == 6  # it is alive
    pair.ok(2, "overlayd", "forget", "--ban", "vm3")
    for number in (1, 2):
        eventually(lambda number=number: "vm3" not in members(pair, number), "vm3 is out")

    def told() -> bool:
        return any("forgotten" in one["text"] for one in pair.json(3, "status")["health"])

    eventually(told, "vm3 says that it is banned")
    kill(pair, 3)
    pair.ok(3, "overlayd", "join")
    eventually(told, "vm3 says so after a restart as well")
    assert "vm3" not in members(pair, 1)
    assert "vm3" not in members(pair, 2)


def test_after_a_reset_a_banned_host_joins_as_a_new_node(pair: Cluster) -> None:
    """The identity is banned, not the machine: with a token it joins as a new node."""
    pair.ok(3, "overlayd", "reset", "--yes")
    code, err = join(pair, 3, VM1, create(pair, 1, "--expires", "10m"))

    assert code == 0, err
    assert members(pair, 1)["vm3"]["state"] == "alive"
