"""Containers that ended, of which some are made again at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.repair import Repair
from overlay.agent.endpoints.restart import Restart
from overlay.agent.process.event_log import EventLog
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.kernel.sandbox.veth import PortExistsError
from overlay.model import Endpoint, Mac, Network, NodeId, Vni, parse_ip
from overlay.signals import Signal

NETWORK = Network(Vni(7), "blue", (), NodeId(b"own" + bytes(13)))


def attachment(name: str, number: int) -> Attachment:
    """Return the attachment of a bare container."""
    return Attachment(
        endpoint_id=number.to_bytes(8, "big").hex(),
        vni=7,
        target=f"netns:{name}",
        netns_path=f"/run/netns/{name}",
        netns_identity=(4, number),
        container_id=name,
        ifname="eth0",
        port=f"ve{number}",
        subnet_index=0,
        gateway=True,
        plugged=True,
    )


class Host:
    """A host on which no container of before lives, as after a reboot."""

    def __init__(self, directory: Path, *before: Attachment) -> None:
        self._count = len(before)
        self.living = ""  # the path of a container that lives
        self.attachments = Attachments(before)
        self.left_at_start: list[list[str]] = []  # attachments that a new one would have met
        self.all_started = asyncio.Event()
        events = Signal[[Vni, list[str]]]()
        lost = Signal[[list[str]]]()
        node = SimpleNamespace(
            directory=SimpleNamespace(
                network_by_vni=lambda _vni: NETWORK, endpoint_of=self._endpoint_of
            ),
            kernel=SimpleNamespace(call=self._open),
            event_log=EventLog(directory),
        )
        drivers = SimpleNamespace(macvlan_ports=SimpleNamespace(interfaces_lost=lost))
        context = SimpleNamespace(node=node, attachments=self.attachments, drivers=drivers)
        restart = SimpleNamespace(
            can_restart=lambda _attachment: True,
            remember=lambda _ended: None,
            container_started=self._started,
        )
        self.repair = Repair(
            cast("EndpointAttacher", SimpleNamespace(context=context, connect=self._connect)),
            cast("EndpointDetacher", SimpleNamespace(remove=self._remove)),
            cast("Restart", restart),
            cast("Reconciler", SimpleNamespace(ports_lost=events)),
        )

    @staticmethod
    def _endpoint_of(one: Attachment) -> Endpoint:
        endpoint_id = bytes.fromhex(one.endpoint_id)
        return Endpoint(
            endpoint_id, NETWORK.vni, one.target, Mac(b"\2" * 6), (parse_ip("10.32.0.9"),)
        )

    async def _open(self, _function: object, path: str, _identity: object) -> int | None:
        return os.open(os.devnull, os.O_RDONLY) if path == self.living else None

    async def _connect(self, *_: Any) -> None:
        raise PortExistsError("the sandbox already has the port")

    async def _remove(self, one: Attachment, *, when_durable: Callable[[], None], **_: Any) -> None:
        await asyncio.sleep(0)
        del self.attachments[bytes.fromhex(one.endpoint_id)]
        when_durable()

    async def _started(self, _kind: str, _container_id: str) -> None:
        self.left_at_start.append([each.target for each in self.attachments.values()])
        if len(self.left_at_start) == self._count:
            self.all_started.set()


async def test_none_is_attached_again_before_all_have_ended(tmp_path: Path) -> None:
    """A new namespace may have the inode of another container's former one."""
    web, db = attachment("web", 1), attachment("db", 2)
    host = Host(tmp_path, web, db, replace(db, endpoint_id=bytes(8).hex(), port="ve3"))
    host.attachments.compared.set()

    host.repair.report(["ve1", "ve2"])
    host.repair.report(["ve3"])
    async with asyncio.timeout(20):
        await host.all_started.wait()
    await host.repair.close()

    assert host.left_at_start == [[], [], []]


async def test_a_port_that_is_there_again_is_kept(tmp_path: Path) -> None:
    """Two passes reported its loss; the second report finds what the first one led to."""
    web, db = attachment("web", 1), attachment("db", 2)
    host = Host(tmp_path, web, db)
    host.living, host._count = web.netns_path, 1
    host.attachments.compared.set()

    host.repair.report(["ve1", "ve2"])
    async with asyncio.timeout(20):
        await host.all_started.wait()  # of db, which ended
    await host.repair.close()

    assert host.left_at_start == [["netns:web"]]
    log = (tmp_path / "events.jsonl").read_text()
    assert "netns:web" not in log
