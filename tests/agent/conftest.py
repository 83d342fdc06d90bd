"""Real members on loopback, without a kernel to program."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio
from overlay.agent.gossip.admission import Admissions
from overlay.agent.gossip.authority import Custody
from overlay.agent.gossip.join_client import Application
from overlay.agent.gossip.join_request import Seed
from overlay.agent.gossip.service import Member
from overlay.agent.process.event_log import Journal
from overlay.agent.records.directory import Directory
from overlay.agent.state import documents
from overlay.agent.state.database import StateFile
from overlay.agent.state.documents import ClusterFile
from overlay.core.events import Event, NodeForgotten, StoreChanged, Told
from overlay.core.protocol.records import CLUSTER_SCOPE, Value
from overlay.model import parse_ip
from overlay.wire.admission import Doorkeeper
from overlay.wire.identity.authority import Anchor, Authority
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import Token


class Site:
    """One member and its desk; what the agent wires up, without a kernel."""

    def __init__(self, state: StateFile, cluster: ClusterFile, address: str) -> None:
        self.state = state
        self.cluster = cluster
        self.now_s = time.time()
        self.member = Member(state, cluster, parse_ip(address), 1500, self._take)
        directory = Directory(self.member.node, self.member.node_id)
        self.journal = journal = Journal(state.directory)
        self.admissions = Admissions(self.member, journal, lambda: self.now_s)
        self.custody = Custody(self.member, directory, self.admissions, journal)
        self.member.pump.door = Doorkeeper(
            self.member.identity,
            self.member.anchor.cluster_id,
            lambda: self.member.card,
            self.admissions,
            os.urandom,
        ).open
        self.member.start()

    def _take(self, event: Event) -> None:
        match event:
            case StoreChanged() | NodeForgotten():
                self.admissions.changed()
            case Told():
                self.custody.take(event)
            case _:
                pass

    def write(self, *values: Value) -> None:
        """Publish records of this node's own."""
        self.member.publish(self.member.commit(CLUSTER_SCOPE, values))
        self.admissions.changed()

    @property
    def seed(self) -> Seed:
        """Where to knock at."""
        card = self.member.card
        return Seed(card.name, card.address, card.gossip_port)


class Sites:
    """All members of a test; those still open at its end are closed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: list[Site] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]

    def first(self) -> Site:
        """Make a cluster."""
        authority = Authority.generate(os.urandom)
        state = StateFile(self._directory / "vm1")
        with state.transaction():
            key = authority.make_key(0, os.urandom(32), time.time())
            documents.put_standing(state, key, authority=authority)
        anchor = Anchor(authority.anchor)
        site = self._start(state, self._cluster("vm1", anchor), "127.0.0.1")
        site.admissions.declare()
        return site

    async def join(
        self, number: int, through: Site, token: Token, identity: Identity | None = None
    ) -> Site:
        """Let a host in by a token, through a member."""
        name, address = f"vm{number}", f"127.0.0.{number}"
        state = StateFile(self._directory / name)
        if identity is not None:
            with state.transaction():
                documents.put_identity(state, identity)
        own = documents.load_identity(state)
        try:
            application = Application(own, token, name, parse_ip(address), [through.seed])
            entry = await application.run(5.0)
        except BaseException:
            state.close()
            raise
        with state.transaction():
            welcome = entry.welcome
            documents.put_standing(state, welcome.key, certificate=welcome.certificate)
        cluster = self._cluster(name, Anchor(token.anchor))
        site = self._start(state, cluster, address)
        site.member.pump.greet(through.seed.address, through.seed.port)
        await until(lambda: site.member.node.caught_up and met(site, through))
        return site

    def again(self, site: Site, address: str) -> Site:
        """Start a member anew, at some address."""
        self.close(site)
        return self._start(StateFile(site.state.directory), site.cluster, address)

    def close(self, site: Site) -> None:
        """End a member without a word."""
        self._open.remove(site)
        site.member.close()
        site.state.close()

    def close_all(self) -> None:
        """End all."""
        for site in list(self._open):
            self.close(site)

    def _cluster(self, name: str, anchor: Anchor) -> ClusterFile:
        return ClusterFile(
            cluster_id=anchor.cluster_id.hex(),
            anchor=anchor.public.hex(),
            gossip_port=self.port,
            vxlan_port=4789,
            node_name=name,
            underlay=None,
            address="",
        )

    def _start(self, state: StateFile, cluster: ClusterFile, address: str) -> Site:
        site = Site(state, cluster, address)
        self._open.append(site)
        return site


def met(one: Site, other: Site) -> bool:
    """Say whether two members know each other."""
    return (
        one.member.node.store.card(other.member.node_id) is not None
        and other.member.node.store.card(one.member.node_id) is not None
    )


async def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait for a fact."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  a fact of another object, without an event
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def sites(tmp_path: Path) -> AsyncIterator[Sites]:
    """Return where members are made."""
    made = Sites(tmp_path)
    yield made
    made.close_all()
