"""A detach: other hosts are told once it is durable, and follow while the interface goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

import pytest
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.model import NodeId

ATTACHMENT = Attachment(
    endpoint_id="aa" * 8, vni=7, target="netns:web", netns_path="/run/netns/web",
    netns_identity=(1, 2), container_id=None, ifname="eth0", port="p1", subnet_index=0,
    gateway=False, plugged=True,
)  # fmt: skip


class Host:
    """A host on which each part of a detach notes that it ran."""

    def __init__(self, *, is_last: bool = False) -> None:
        self.ran: list[str] = []
        self.timeouts_s: list[float] = []
        self.gossip = SimpleNamespace(
            commit=lambda *_args, **_more: self._ran("durable", ["withdrawn"]),
            publish=lambda segments: self._ran(f"published {segments}"),
            publish_confirmed=self._publish_confirmed,
            asking=self._asking,
        )
        self.disconnect = AsyncMock(side_effect=lambda *_: self._ran("disconnected"))
        driver = SimpleNamespace(removal_rows=lambda _: [], disconnect=self.disconnect)
        participation = AsyncMock()
        participation.release.return_value = ["left"] if is_last else []
        context = MagicMock(
            node=MagicMock(gossip=self.gossip),
            drivers=SimpleNamespace(of_attachment=lambda _: driver),
            participation=participation,
            default_routes=AsyncMock(),
            subnet_routes=AsyncMock(),
            container_changed=AsyncMock(),
        )
        context.node.directory.endpoint_of.return_value = None
        context.node.directory.network_by_vni.return_value = None
        self.detacher = EndpointDetacher(cast("Any", context))

    def _ran(self, what: str, result: object = None) -> Any:
        self.ran.append(what)
        return result

    async def _publish_confirmed(self, segments: list[str], timeout_s: float) -> list[NodeId]:
        self.timeouts_s.append(timeout_s)
        await asyncio.sleep(0.01)
        self._ran(f"confirmed {segments}")
        return []

    @contextmanager
    def _asking(self, segments: list[str]) -> Iterator[Callable[[float], Awaitable[list[NodeId]]]]:
        async def missing(timeout_s: float) -> list[NodeId]:
            self.timeouts_s.append(timeout_s)
            return cast("list[NodeId]", self._ran(f"confirmed {segments}", []))

        self._ran(f"asked {segments}")
        try:
            yield missing
        finally:
            self._ran("asked no more")


async def test_others_follow_while_the_interface_goes() -> None:
    """The verb waits for both."""
    host = Host()
    await host.detacher.remove(ATTACHMENT)
    told = "asked ['withdrawn']", "confirmed ['withdrawn']"
    assert host.ran == ["durable", told[0], "disconnected", told[1], "asked no more"]


async def test_the_last_endpoint_ends_the_participation() -> None:
    """The others hear of that once the sandbox is gone, and the verb waits for it, too."""
    host = Host(is_last=True)
    await host.detacher.remove(ATTACHMENT)
    assert host.ran[2:5] == ["disconnected", "confirmed ['left']", "confirmed ['withdrawn']"]
    first_s, second_s = host.timeouts_s
    assert second_s < first_s, "both waits have one end, for a peer that is silent"


async def test_a_kernel_that_refuses_leaves_nobody_asked() -> None:
    """The endpoint is withdrawn, for other hosts as well."""
    host = Host()
    host.disconnect.side_effect = OverlayError("refused")
    with pytest.raises(OverlayError, match="refused"):
        await host.detacher.remove(ATTACHMENT)
    assert host.ran == ["durable", "asked ['withdrawn']", "asked no more"]


async def test_who_does_not_wait_tells_all_the_same() -> None:
    """Nobody is asked to confirm."""
    host = Host(is_last=True)
    await host.detacher.remove(ATTACHMENT, wait=False)
    told = "published ['withdrawn']", "published ['left']"
    assert host.ran == ["durable", told[0], "disconnected", told[1]]
