"""Members with very many endpoints, without containers or agents: one process gossips for all.

So a benchmark has hosts beside 50,000 records within a minute, on two hosts in place of fifteen.
The records are written into the state of one agent while it is stopped; others receive them from
there. Their members take no part in the network, so they confirm nothing and get no frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from overlay import __version__, limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.gossip.stored_records import stored_card, stored_segment
from overlay.agent.state import membership_documents
from overlay.agent.state.database import Row, StateDatabase, StoredSegment
from overlay.agent.state.membership_documents import StoredCluster
from overlay.core.events import CardAccepted
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.records import Scope
from overlay.model import Card, Endpoint, Ip, Vni, mac_for, parse_ip
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.signatures import KeySigner

COUNT = 13  # no more than limits.ENDPOINTS_PER_LOG_MAX records of one member count
_BATCH = 8  # endpoints of one write: one segment
_FIRST_ADDRESS = 0x0A210000  # 10.33.0.0: the agents' own addresses are below

MemberRows = list[list[Row]]
"""Of each member, the rows of its state."""


def addresses(cluster: int) -> list[str]:
    """Return the members' underlay addresses in one of several clusters of a lab."""
    return [f"192.168.56.{100 + COUNT * cluster + number}" for number in range(COUNT)]


def add(directory: Path, cluster_number: int, vni: Vni, records: int) -> MemberRows:
    """Write members with that many endpoints in all into the state of a stopped agent.

    The agent holds the cluster's authority. Returns what `serve` needs. Raises ValueError if not
    all records would count.
    """
    if records > COUNT * limits.ENDPOINTS_PER_LOG_MAX:
        raise ValueError(f"{COUNT} members have no {records} endpoints that count")
    made = []
    with contextlib.closing(StateDatabase(directory)) as state:
        cluster, authority = (
            membership_documents.CLUSTER.find(state),
            membership_documents.AUTHORITY.find(state),
        )
        keyring = membership_documents.require_keyring(state)
        assert cluster is not None
        assert authority is not None
        for number, address in enumerate(addresses(cluster_number)):
            member = _Member(authority, replace(cluster, node_name=f"m{number}", address=address))
            first, end = (records * each // COUNT for each in (number, number + 1))
            segments = [*member.segments(vni, range(first, end))]
            state.commit(segments=segments, cards=[stored_card(member.card)])
            made.append([*member.rows(), membership_documents.KEYRING.row(keyring)])
    return made


async def serve(members: Sequence[Sequence[Row]]) -> None:
    """Gossip as these members, until cancelled."""
    with contextlib.ExitStack() as running:
        for number, rows in enumerate(members):
            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
            state = running.enter_context(contextlib.closing(StateDatabase(folder / str(number))))
            state.commit(rows)
            cluster = membership_documents.CLUSTER.find(state)
            assert cluster is not None
            gossip = GossipService(state, cluster, parse_ip(cluster.address), 1500)
            running.callback(gossip.close)
            gossip.transport.event_occurred.connect(partial(_keep_card, gossip))
            gossip.start()
        await asyncio.Event().wait()


def _keep_card(gossip: GossipService, event: object) -> None:
    if isinstance(event, CardAccepted):
        gossip.card_accepted(event.card)


class _Member:
    """A new member: its identity, its card, and its log."""

    def __init__(self, authority: Authority, cluster: StoredCluster) -> None:
        self._cluster = cluster
        self._identity = own = Identity.generate(os.urandom)
        address, keys = parse_ip(cluster.address), (own.sign_public, own.seal_public)
        name, now_s = cluster.node_name, time.time()
        self._certificate = authority.sign_certificate(*keys, name, address, now_s)
        self._signer = KeySigner(own, TrustAnchor(authority.anchor))
        card = Card(
            own.node_id, name, *keys, address, cluster.gossip_port, 1, 1500, __version__,
            certificate=self._certificate,
        )  # fmt: skip
        self.card = self._signer.issue_card(card)

    def rows(self) -> list[Row]:
        """Return the rows of its state; its next card has a later epoch than this one."""
        return [
            membership_documents.IDENTITY.row(self._identity),
            membership_documents.CLUSTER.row(self._cluster),
            membership_documents.CERTIFICATE.row(self._certificate),
            membership_documents.EPOCH.row(self.card.epoch),
        ]

    def segments(self, vni: Vni, numbers: range) -> Iterator[StoredSegment]:
        """Yield its log of the network, with one endpoint for each number."""
        store = Store(self.card.node_id)
        store.accept_card(self.card)
        writer = LogWriter(store, self._signer)
        for first in range(numbers.start, numbers.stop, _BATCH):
            batch = range(first, min(first + _BATCH, numbers.stop))
            for segment in writer.write(Scope(vni), [*_endpoints(vni, batch)]):
                store.accept(segment)
                yield stored_segment(segment)


def _endpoints(vni: Vni, numbers: range) -> Iterator[Endpoint]:
    for number in numbers:
        ip = Ip((_FIRST_ADDRESS + number).to_bytes(4, "big"))
        yield Endpoint(os.urandom(8), vni, f"record{number}", mac_for(vni, ip), (ip,))
