"""Real members on loopback, without a kernel to program."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio
from overlay.agent.gossip.admission import AdmissionService
from overlay.agent.gossip.authority.backup import AuthorityBackup
from overlay.agent.gossip.authority.certificate import CertificateKeeper
from overlay.agent.gossip.authority.handover import AuthoritySharing
from overlay.agent.gossip.authority.holders import AuthorityHolders
from overlay.agent.gossip.join_client import JoinAttempt
from overlay.agent.gossip.join_request import JoinSeed
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.state import membership_documents
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.membership_documents import StoredCluster
from overlay.core.events import (
    AuthorityMessage,
    CardAccepted,
    Event,
    MemberChanged,
    NodeForgotten,
    OwnCardAhead,
    SegmentAccepted,
    StoreChanged,
)
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Value
from overlay.model import Subnet, parse_ip
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import Token


class Site:
    """One member with its admission service, as the agent has it, without a kernel."""

    def __init__(self, state: StateDatabase, cluster: StoredCluster, address: str) -> None:
        self.state = state
        self.cluster = cluster
        self.now_s = time.time()
        self.gossip = GossipService(state, cluster, parse_ip(address), 1500)
        directory = Directory(self.gossip.node, self.gossip.node_id)
        self.event_log = event_log = EventLog(state.directory)
        self.holders = AuthorityHolders(self.gossip)
        self.admission = AdmissionService(self.gossip, self.holders, event_log, lambda: self.now_s)
        self.certificate = CertificateKeeper(self.gossip, directory, self.holders, event_log)
        self.authority_sharing = AuthoritySharing(self.gossip, directory, self.holders, event_log)
        self.authority_backup = AuthorityBackup(
            self.gossip, self.holders, self.authority_sharing, event_log
        )
        self.gossip.transport.event_occurred.connect(self._route)
        self.gossip.start()

    def _route(self, event: Event) -> None:
        match event:
            case SegmentAccepted(segment=segment):
                self.gossip.segment_accepted(segment)
            case CardAccepted(card=card):
                self.gossip.card_accepted(card)
            case OwnCardAhead(epoch=epoch):
                self.gossip.own_card_ahead(epoch)
            case MemberChanged(node_id=node_id, after=MemberState.SUSPECT | MemberState.DEAD):
                self.gossip.member_unresponsive(node_id)
            case StoreChanged():
                self.records_changed()
            case NodeForgotten(node_id=node_id):
                self.gossip.node_forgotten(node_id)
                self.records_changed()
            case AuthorityMessage():
                self.certificate.handle_message(event)
                self.authority_sharing.handle_message(event)
            case _:
                pass

    def write(self, *values: Value) -> None:
        """Publish records of this node's own."""
        self.gossip.publish(self.gossip.commit(CLUSTER_SCOPE, values))
        self.records_changed()

    def records_changed(self) -> None:
        """Read the records again before the next use."""
        self.admission.records_changed()
        self.holders.records_changed()

    @property
    def seed(self) -> JoinSeed:
        """The address to contact."""
        card = self.gossip.card
        return JoinSeed(card.name, card.address, card.gossip_port)


class Sites:
    """All members of a test; those still open at its end are closed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: list[Site] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]

    def first(self) -> Site:
        """Create a cluster."""
        authority = Authority.generate(os.urandom)
        state = StateDatabase(self._directory / "vm1")
        key = authority.make_key(0, os.urandom(32), time.time())
        state.commit(membership_documents.rows(key, authority=authority))
        anchor = TrustAnchor(authority.anchor)
        site = self._start(state, self._cluster("vm1", anchor), "127.0.0.1")
        site.holders.declare()
        return site

    async def join(
        self, number: int, through: Site, token: Token, identity: Identity | None = None
    ) -> Site:
        """Let a host join with a token, through a member."""
        name, address = f"vm{number}", f"127.0.0.{number}"
        state = StateDatabase(self._directory / name)
        if identity is not None:
            membership_documents.IDENTITY.put(state, identity)
        own = membership_documents.ensure_identity(state)
        try:
            application = JoinAttempt(own, token, name, parse_ip(address), [through.seed])
            entry = await application.run(5.0)
        except BaseException:
            state.close()
            raise
        welcome = entry.welcome
        state.commit(membership_documents.rows(welcome.key, certificate=welcome.certificate))
        cluster = self._cluster(name, TrustAnchor(token.anchor))
        site = self._start(state, cluster, address)
        site.gossip.transport.send_join_hello(through.seed.address, through.seed.port)
        await until(lambda: site.gossip.node.caught_up and met(site, through))
        return site

    def again(self, site: Site, address: str) -> Site:
        """Restart a member, at some address."""
        self.close(site)
        return self._start(StateDatabase(site.state.directory), site.cluster, address)

    def close(self, site: Site) -> None:
        """Stop a member without a goodbye."""
        self._open.remove(site)
        site.gossip.close()
        site.state.close()

    def close_all(self) -> None:
        """Stop all members."""
        for site in list(self._open):
            self.close(site)

    def _cluster(self, name: str, anchor: TrustAnchor) -> StoredCluster:
        return StoredCluster(
            cluster_id=anchor.cluster_id.hex(),
            anchor=anchor.public.hex(),
            gossip_port=self.port,
            vxlan_port=4789,
            node_name=name,
            underlay=None,
            address="",
        )

    def _start(self, state: StateDatabase, cluster: StoredCluster, address: str) -> Site:
        site = Site(state, cluster, address)
        self._open.append(site)
        return site


def subnet(base: str) -> Subnet:
    """Return a /24 with its first address as gateway."""
    return Subnet(parse_ip(base), 24, parse_ip(base[:-1] + "1"))


def met(one: Site, other: Site) -> bool:
    """Return whether two members know each other."""
    return (
        one.gossip.node.store.card(other.gossip.node_id) is not None
        and other.gossip.node.store.card(one.gossip.node_id) is not None
    )


async def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  a fact of another object, without an event
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def sites(tmp_path: Path) -> AsyncIterator[Sites]:
    """Return the factory of members."""
    made = Sites(tmp_path)
    yield made
    made.close_all()
