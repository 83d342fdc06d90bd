"""A container whose record a copy of this host's disk withdrew gets back what it had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from overlay.agent.endpoints.older_state import adoption
from overlay.agent.endpoints.older_state.adoption import Adoption
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.process.event_log import EventLog
from overlay.agent.record_readers import RecordReaders
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import Row, StateDatabase
from overlay.core.log.store import Store
from overlay.core.protocol.records import Scope
from overlay.kernel.host.connected_containers import ConnectedContainer, connected_containers
from overlay.model import (
    SHARED_NAME_LABEL,
    Endpoint,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    parse_ip,
)
from tests.agent.endpoints.older_state.test_newer_records import OLD

OWN = NodeId(b"own" + bytes(13))
SUBNET = Subnet(parse_ip("10.32.0.8"), 29, parse_ip("10.32.0.14"))
NETWORK = Network(Vni(7), "blue", (SUBNET,), OWN)
ISOLATED = ("overlayd.isolated", "on")
RECORD = Endpoint(
    bytes.fromhex(OLD.endpoint_id), NETWORK.vni, "db", Mac(b"\2" * 6), (parse_ip("10.32.0.9"),),
    ("replica",), (ISOLATED, ("team", "blue")),
)  # fmt: skip
FOUND = ConnectedContainer(
    "ov-000007-o", OLD.port, "/run/netns/web", OLD.netns_identity, "eth0", RECORD.mac, RECORD.ips,
    default_route=True, runtime_endpoint="",
)  # fmt: skip


class Host:
    """A host with one attached container whose record is gone."""

    def __init__(self, folder: Path, *others: str) -> None:
        self.state = StateDatabase(folder)
        documents.ATTACHMENTS.put(self.state, OLD)
        self.attachments = Attachments([OLD])
        self.written: list[Endpoint] = []
        gossip_of_grants = MagicMock(node_id=OWN, may_write=True)
        gossip_of_grants.transport.now.return_value = 1e9
        signer = MagicMock()
        gossip_of_grants.node.store, gossip_of_grants.signer = Store(OWN), signer
        gossip_of_grants.cluster.cluster_id = "00" * 16
        self.space = RecordReaders(gossip_of_grants, self.attachments, 60.0).space
        self.allocator = AddressAllocator(gossip_of_grants, MagicMock(), MagicMock(), self.space)
        self.event_log = EventLog(folder)
        directory = SimpleNamespace(
            networks=lambda: [NETWORK],
            endpoints=lambda _vni: iter(()),
            endpoint_of=lambda _attachment: None,
            network_by_vni=lambda _vni: NETWORK,
            all_endpoints=lambda _vni: [
                (None, replace(RECORD, endpoint_id=b"others", name=name)) for name in others
            ],
        )
        gossip = SimpleNamespace(
            node_id=NETWORK.creator,
            state=self.state,
            commit=self._commit,
            publish=lambda _segments: None,
            transport=SimpleNamespace(now=lambda: 5.0),
        )
        node = SimpleNamespace(
            gossip=gossip,
            directory=directory,
            event_log=self.event_log,
            kernel=SimpleNamespace(call=self._call),
        )
        self.context: Any = SimpleNamespace(
            node=node,
            attachments=self.attachments,
            allocator=self.allocator,
            participation=SimpleNamespace(begin=nothing),
        )
        self.adoption = Adoption(cast("Any", self.context))

    def _commit(self, scope: Scope, endpoints: list[Endpoint], rows: list[Row]) -> list[object]:
        assert scope == Scope(NETWORK.vni)
        self.written += endpoints
        self.state.commit(rows)
        return []

    async def _call(self, function: object, *_: object) -> list[object]:
        return [FOUND] if function is connected_containers else []


async def nothing(*_: object) -> None:
    """Do nothing."""


@pytest.fixture(autouse=True)
def _owner(monkeypatch: pytest.MonkeyPatch) -> None:
    target = SimpleNamespace(
        text="docker:web", name="web", kind="docker", container_id=None, close=lambda: None
    )
    monkeypatch.setattr(adoption, "owner_of", lambda _identity: target)


async def adopted(host: Host, restarted: Path | None = None) -> Endpoint:
    """Have the container adopted, by an agent that starts anew; return its new record."""
    if restarted is not None:
        host.state.close()
        host.state = StateDatabase(restarted)
        (stored,) = documents.ATTACHMENTS.load(host.state)
        host.context.node.gossip.state = host.state
        host.attachments.clear()
        host.attachments[bytes.fromhex(stored.endpoint_id)] = stored
        host.adoption = Adoption(host.context)
    assert await host.adoption.adopt(unrecorded=False) == ["docker:web"]
    return host.written[-1]


async def test_what_was_withdrawn_comes_back_after_a_restart(tmp_path: Path) -> None:
    """With isolation, VLANs and limits, which labels say, and name and aliases; only once."""
    host = Host(tmp_path)
    host.adoption.note_withdrawn([RECORD])
    assert host.attachments.withdrawn_ips(NETWORK.vni) == {*RECORD.ips}
    others = [await host.allocator.allocate_on(NETWORK, 0) for _ in range(2)]
    assert RECORD.ips[0] not in others, "nothing else may get it before the adoption"

    assert await adopted(host, tmp_path) == RECORD
    (event,) = host.event_log.since(0)
    assert event["text"] == "docker:web was found connected with 10.32.0.9: attached again"
    (stored,) = documents.ATTACHMENTS.load(host.state)
    assert stored == OLD
    assert host.attachments.withdrawn_ips(NETWORK.vni) == set()
    host.state.close()


async def test_a_name_that_is_taken_is_given_to_no_other(tmp_path: Path) -> None:
    """Unless the endpoints share it."""
    host = Host(tmp_path, "db", "db-2")
    host.adoption.note_withdrawn([RECORD])
    assert (await adopted(host)).name == "db-3"

    shared = replace(RECORD, labels=(SHARED_NAME_LABEL,))
    host.adoption.note_withdrawn([shared])
    assert (await adopted(host)).name == "db"
    host.state.close()


async def test_a_record_that_is_not_known_is_reported(tmp_path: Path) -> None:
    """The container is attached again without what only its record had, and the event says so."""
    host = Host(tmp_path)
    host.adoption.note_withdrawn([replace(RECORD, endpoint_id=b"detached")])

    found = await adopted(host)

    assert (found.name, found.labels, found.aliases) == ("web", (), ())
    (event,) = host.event_log.since(0)
    assert "isolation; detach and attach it" in event["text"]
    host.state.close()
