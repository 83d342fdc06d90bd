"""Who needs connection tracking, in a real kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import ExposedLink, HostState
from overlay.kernel import netns
from overlay.kernel.nft import host_table
from overlay.kernel.nft.host_table import HostTable
from overlay.kernel.tracking.tracking_users import TrackingUsers
from overlay.model import NodeId, parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
ONE, OTHER = NodeId(b"\x11" * 16), NodeId(b"\x22" * 16)
STATE = HostState(links=frozenset({ExposedLink("ovh1", ((parse_ip("10.32.0.0"), 16),))}))
STATELESS = """
nft 'table inet mine { chain c { type filter hook input priority 0; tcp dport 22 accept; }; }'
nft 'table inet mine { chain raw { type filter hook prerouting priority -300; notrack; }; }'
iptables -A INPUT -p tcp -m multiport --dports 22,80 -m comment --comment web -j ACCEPT
ip6tables -P FORWARD DROP
"""
OPERATORS = "nft 'table inet overlayd_user { chain c { ct state invalid drop; }; }'"


@pytest.fixture
def host(world: World) -> Iterator[Callable[[str], str | None]]:
    """Return what runs a script on a host, and then says who needs tracking."""
    name = world.namespace("host")
    with netns.inside(world.fd(name)):
        users, table = TrackingUsers(), HostTable(ONE)
        table.write(STATE)

    def after(script: str) -> str | None:
        world.run(name, "sh", "-ec", script)
        with netns.inside(world.fd(name)):  # /proc is that of the thread's namespace
            return users.first({host_table.table_name(ONE)})

    yield after
    users.close()
    table.close()


def test_rules_about_single_packets_need_none(host: Callable[[str], str | None]) -> None:
    """Neither those of nft nor of iptables, nor overlayd's own."""
    assert host(STATELESS) is None


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("nft 'table ip w { chain c { ct state established accept; }; }'", "table ip w has rules"),
        ("nft 'table ip6 w { chain c { type nat hook output priority 0; }; }'", "table ip6 w tran"),
        ("iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT", "table ip filter has"),
        ("iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE", "table ip nat translates"),
        ("ip6tables -t raw -A PREROUTING -p udp -j CT --notrack", "table ip6 raw has rules"),
        (OPERATORS, "table inet overlayd_user has rules"),
    ],
)  # fmt: skip
def test_rules_about_connections_are_found(
    host: Callable[[str], str | None], script: str, shown: str
) -> None:
    """Also in a table that is used for other things, and in the operator's own."""
    found = host(STATELESS + script)
    assert found is not None
    assert found.startswith(shown)


def test_another_agent_of_this_host_is_one(world: World, host: Callable[[str], str | None]) -> None:
    """Its ports and masquerade would break."""
    name = next(each for each in netns.names() if each == f"{world.prefix}host")
    with netns.inside(world.fd(name)):
        other = HostTable(OTHER)
        other.write(STATE)
        other.close()

    found = host("true")
    assert found is not None
    assert found.startswith(f"table inet {host_table.table_name(OTHER)} translates addresses")
