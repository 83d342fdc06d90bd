"""Containers that were attached anew since the state file was copied are remembered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.older_state.newer_records import NewerRecords
from overlay.agent.endpoints.restart import Restart
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import PlacedEndpoint
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import Row, StateDatabase
from overlay.agent.state.documents import Attachment
from overlay.core.protocol.records import Key, Scope
from overlay.model import Endpoint, Mac, Network, NodeId, Vni, parse_ip

OWN, OTHER = NodeId(b"own" + bytes(13)), NodeId(b"other" + bytes(11))
NETWORK = Network(Vni(7), "blue", (), OWN)
OLD = Attachment(
    endpoint_id=bytes(8).hex(),
    vni=7,
    target="docker:web",
    netns_path="/proc/7/ns/net",
    netns_identity=(4, 7),
    container_id="a" * 64,
    ifname="eth0",
    port="veold",
    subnet_index=0,
    gateway=True,
    plugged=True,
)
NEW = Endpoint(b"new" + bytes(5), NETWORK.vni, "web", Mac(b"\2" * 6), (parse_ip("10.32.0.9"),))


class Host:
    """A host whose state file has one attachment, and the records that its peers sent."""

    def __init__(self, directory: Path, records: list[PlacedEndpoint]) -> None:
        self.state = StateDatabase(directory)
        self.records = records
        self.deleted: list[Key] = []
        self.started: list[tuple[str, str]] = []
        self.ended: list[documents.EndedEndpoint] = []
        documents.ATTACHMENTS.put(self.state, OLD)
        self.attachments = Attachments([OLD])
        gossip = SimpleNamespace(
            node_id=OWN, state=self.state, commit=self.commit, publish=lambda _segments: None
        )
        records_of = SimpleNamespace(
            endpoints=lambda _vni: iter(self.records),
            network_by_vni=lambda _vni: NETWORK,
            endpoint_of=self.endpoint_of,
        )
        self.event_log = EventLog(directory)
        node = SimpleNamespace(gossip=gossip, directory=records_of, event_log=self.event_log)
        driver = SimpleNamespace(removal_rows=lambda _attachment: [], disconnect=nothing)
        context = SimpleNamespace(
            node=node,
            attachments=self.attachments,
            allocator=SimpleNamespace(quarantine=lambda _endpoint: None),
            drivers=SimpleNamespace(of_attachment=lambda _attachment: driver),
            default_routes=SimpleNamespace(reconcile=nothing),
            subnet_routes=SimpleNamespace(ensure=nothing),
            container_changed=SimpleNamespace(emit=nothing),
        )
        restart = SimpleNamespace(
            can_restart=lambda attachment: attachment.container_id is not None,
            remember=self.ended.append,
            container_started=self.container_started,
        )
        self.newer = NewerRecords(cast("EndpointContext", context), cast("Restart", restart))

    def commit(
        self, _scope: Scope, *, deletes: list[Key], rows: list[Row] | tuple[()] = ()
    ) -> list[Any]:
        """Write as the gossip service does: the records that go, and the documents."""
        self.deleted += deletes
        self.state.commit(rows)
        return []

    def endpoint_of(self, attachment: Attachment) -> Endpoint | None:
        """Return the record of an attachment."""
        wanted = bytes.fromhex(attachment.endpoint_id)
        return next((e for _, e in self.records if e.endpoint_id == wanted), None)

    async def container_started(self, kind: str, container_id: str) -> bool:
        """Note what is attached again if it runs."""
        self.started.append((kind, container_id))
        return True


async def nothing(*_: object) -> None:
    """Do nothing."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Return a host whose container was attached anew since its state was copied."""
    made = Host(tmp_path, [PlacedEndpoint(OWN, NEW)])
    yield made
    made.state.close()


async def test_a_container_attached_anew_is_remembered(host: Host) -> None:
    """With the addresses of its newer record, which goes in the same step."""
    await host.newer.remember()
    (ended,) = documents.ENDED.load(host.state)

    assert (ended.target, ended.ip, ended.gateway) == ("docker:web", "10.32.0.9", True)
    assert host.ended == [ended]
    assert host.deleted == [("endpoint", NEW.endpoint_id)]
    assert documents.ATTACHMENTS.load(host.state) == []
    assert len(host.attachments) == 0
    assert host.started == []
    await host.newer.attach_remembered()
    await host.newer.attach_remembered()
    assert host.started == [("docker", OLD.container_id)]


@pytest.mark.parametrize(
    "record",
    [
        PlacedEndpoint(OTHER, NEW),
        PlacedEndpoint(OWN, replace(NEW, name="db")),
        PlacedEndpoint(OWN, replace(NEW, endpoint_id=bytes(8))),
    ],
    ids=["of another host", "of another container", "of the attachment"],
)
async def test_other_records_take_no_ones_place(tmp_path: Path, record: PlacedEndpoint) -> None:
    """The attachment stays for the check of its interface."""
    host = Host(tmp_path, [record])
    await host.newer.remember()

    assert documents.ATTACHMENTS.load(host.state) == [OLD]
    assert (host.ended, host.deleted) == ([], [])
    host.state.close()


async def test_an_adopted_container_is_left_alone(host: Host) -> None:
    """The kernel connects it, and it has its attachment again."""
    adopted = replace(OLD, endpoint_id=NEW.endpoint_id.hex(), netns_identity=(4, 8))
    host.attachments[NEW.endpoint_id] = adopted
    await host.newer.remember()

    assert host.ended == []
    assert len(host.attachments) == 2


def test_only_records_without_attachment_are_withdrawn(host: Host) -> None:
    """Those of this node; an event says which address went."""
    known = replace(NEW, endpoint_id=bytes(8), name="known")
    host.records += [PlacedEndpoint(OWN, known), PlacedEndpoint(OTHER, NEW)]
    host.newer.withdraw_unattached(NETWORK)

    assert host.deleted == [("endpoint", NEW.endpoint_id)]
    (event,) = host.event_log.since(0)
    assert (event["kind"], event["endpoint"]) == ("gone", "web")
    assert event["text"] == "10.32.0.9 is withdrawn: no container here has it"
