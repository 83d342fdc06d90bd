"""The resolvers in whose place a network's DNS server answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.resolvers.container_resolvers import ContainerResolvers
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.model import Ip, Network, ip_text
from tests.agent.dns.conftest import BLUE, RED, subnet

GOOGLE = ["8.8.8.8", "8.8.4.4"]


def attachment(serial: int, vni: int, *resolvers: str) -> Attachment:
    """Return an attachment of a container that was given resolvers."""
    return Attachment(
        endpoint_id=serial.to_bytes(8, "big").hex(),
        vni=vni,
        target=f"docker:c{serial}",
        netns_path="/proc/1/ns/net",
        netns_identity=(4, serial),
        container_id="c",
        ifname="eth0",
        port="ve0",
        subnet_index=0,
        gateway=True,
        plugged=True,
        resolvers=list(resolvers),
    )


@pytest.fixture
def resolvers_of(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function: the resolvers of a network, from the host's files and attachments."""
    host, stub = tmp_path / "resolv.conf", tmp_path / "stub"
    stub.write_text("nameserver 192.0.2.9\n")
    attachments = Attachments()
    resolvers = ContainerResolvers(attachments, host_file=host, stub_file=stub)

    def found(network: Network, text: str, *mine: Attachment) -> list[str]:
        host.write_text(text)
        attachments.clear()
        attachments.update((bytes.fromhex(each.endpoint_id), each) for each in mine)
        return list(map(ip_text, resolvers.of(network)))

    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nameserver 192.0.2.7\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\n", ["192.0.2.7"]),
        ("nameserver 169.254.169.254\n", ["169.254.169.254"]),
        ("nameserver 127.0.0.53\n", ["192.0.2.9"]),
        ("nameserver 127.0.0.1\n", GOOGLE),
        ("", GOOGLE),
        ("nameserver 10.1.0.1\nnameserver 192.0.2.7\n", ["192.0.2.7"]),
    ],
    ids=["usable", "of a cloud", "systemd-resolved", "loopback", "none", "on the network itself"],
)
def test_the_hosts_are_those_that_engines_give(
    resolvers_of: Callable[..., list[str]], text: str, expected: list[str]
) -> None:
    """They are read from the host's file again when it changes."""
    assert resolvers_of(BLUE, "nameserver 192.0.2.77\n") == ["192.0.2.77"]
    assert resolvers_of(BLUE, text) == expected


def test_containers_own_are_of_their_network(resolvers_of: Callable[..., list[str]]) -> None:
    """The resolvers given to a container count on its network until it is detached."""
    mine = attachment(1, BLUE.vni, "192.0.2.1", "2001:db8::1")
    host = "nameserver 192.0.2.7\n"

    assert resolvers_of(BLUE, host, mine) == ["192.0.2.7", "192.0.2.1"]
    assert resolvers_of(RED, host, mine) == ["192.0.2.7"]
    assert resolvers_of(BLUE, host, replace(mine, resolvers=[])) == ["192.0.2.7"]
    assert resolvers_of(BLUE, host) == ["192.0.2.7"]


def test_ipv6_resolvers_need_an_ipv6_subnet(resolvers_of: Callable[..., list[str]]) -> None:
    """A network without IPv6 receives no query for them."""
    six = replace(subnet("10.1.0.0"), base=Ip(b"\xfd" + bytes(15)), prefix_length=64)
    both = replace(BLUE, subnets=(*BLUE.subnets, six))
    host = "nameserver 2001:db8::7\n"

    assert resolvers_of(BLUE, host) == []
    assert resolvers_of(both, host) == ["2001:db8::7"]


def test_their_number_is_bounded(resolvers_of: Callable[..., list[str]]) -> None:
    """Each costs two sockets on each network."""
    many = [attachment(each, BLUE.vni, f"192.0.2.{each}") for each in range(1, 40)]

    assert len(resolvers_of(BLUE, "", *many)) == limits.DNS_INTERCEPTED_MAX
