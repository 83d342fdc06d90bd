"""Members that speak another version of the protocol are refused, and named."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from overlay.agent.records.directory import Directory
from overlay.agent.records.protocol_versions import SHOWN_S, ProtocolVersions
from overlay.core.events import Event, OtherVersion
from overlay.model import NodeId, ip_text
from overlay.wire.codec.datagram import Datagram
from tests.agent.conftest import until

if TYPE_CHECKING:
    from tests.agent.conftest import Site, Sites

OLD = b"\x01\x03" + bytes(98)  # a datagram of version 1


def versions_of(site: Site, clock: Callable[[], float] | None = None) -> ProtocolVersions:
    """Return the component of a member, connected as the agent connects it."""
    directory = Directory(site.gossip.node, site.gossip.node_id)
    made = ProtocolVersions(directory, site.event_log, clock or site.gossip.transport.now)

    def route(event: Event) -> None:
        if isinstance(event, OtherVersion):
            made.heard(event.node_id, event.version)

    site.gossip.transport.event_occurred.connect(route)
    return made


def drops(site: Site) -> int:
    """Return how many datagrams of other versions a member has refused."""
    return site.gossip.transport.drops["other-version"]


async def test_a_member_of_version_one_is_refused_in_words(sites: Sites) -> None:
    """It is counted, named while it goes on, and reported once."""
    one = sites.first()
    two = await sites.join(2, one, one.admission.default_token())
    versions = versions_of(one)
    to = one.seed
    for _ in range(3):
        two.gossip.transport.send([Datagram(to.address, to.port, OLD)])
    await until(lambda: drops(one) == 3)

    assert versions.recent() == [(two.gossip.node_id, 1)]
    logged = [each for each in one.event_log.since(0.0) if each["kind"] == "version"]
    assert len(logged) == 1
    assert "vm2 speaks version 1 of the protocol, this host version 2" in logged[0]["text"]
    assert "Upgrade overlayd on vm2" in logged[0]["text"]


async def test_a_stranger_of_version_one_is_only_counted(sites: Sites) -> None:
    """A sender without a member's address has no name either."""
    one = sites.first()
    versions = versions_of(one)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(OLD, ("127.0.0.1", one.seed.port))
    await until(lambda: drops(one) == 1)

    assert versions.recent() == []


async def test_a_later_version_asks_for_an_upgrade_here(sites: Sites) -> None:
    """The older side is the one to upgrade; what was heard long ago is not shown."""
    one = sites.first()
    now = [100.0]
    versions = versions_of(one, lambda: now[0])
    versions.heard(NodeId(b"n" * 16), 3)

    assert versions.recent() == [(NodeId(b"n" * 16), 3)]
    assert versions.explain("vm9", 3)[1].startswith("Upgrade overlayd on this host")
    now[0] += SHOWN_S + 1
    assert versions.recent() == []


async def test_an_upgraded_member_is_not_named_any_longer(sites: Sites) -> None:
    """As soon as there is a session with it."""
    one = sites.first()
    versions = versions_of(one)
    one.gossip.transport.session_opened.connect(versions.met)
    two = await sites.join(2, one, one.admission.default_token())
    two.gossip.transport.send([Datagram(one.seed.address, one.seed.port, OLD)])
    await until(lambda: len(versions.recent()) == 1)
    address = two.gossip.card.address
    two = sites.again(two, ip_text(address))
    await until(lambda: versions.recent() == [])
