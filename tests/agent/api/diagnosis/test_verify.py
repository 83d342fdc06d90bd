"""A repair on request does not rely on what was told before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, MagicMock

from overlay.agent.api.diagnosis import verify
from overlay.agent.api.schema.cluster import VerifyRequest


class ContainerEnds:
    """Containers one of which lacks something of which no notification tells."""

    def __init__(self) -> None:
        self.lacks = [("blue", "netns:web: eth0 is down")]
        self.is_stale = False

    def mark_stale(self) -> None:
        """Have all looked at."""
        self.is_stale = True

    async def attempt(self) -> None:
        """Look at all, or at none."""
        if self.is_stale:
            self.lacks = []

    async def differences(self) -> list[tuple[str, str]]:
        """Return what is lacking."""
        return self.lacks


async def test_a_repair_looks_at_every_container() -> None:
    """Also where the loop has taken the notification, and its repair was refused."""
    nothing = AsyncMock(return_value=[])
    part = MagicMock(differences=nothing, attempt=AsyncMock(), reconcile_all=AsyncMock())
    reconciler = SimpleNamespace(differences=AsyncMock(return_value={}))
    forwarding = SimpleNamespace(
        reconciler=reconciler,
        drivers=part,
        underlay_filter=part,
        native_path=part,
        encryption=part,
    )
    clients = SimpleNamespace(differences=nothing, verify_all=AsyncMock())
    components = SimpleNamespace(
        forwarding=forwarding,
        directory=SimpleNamespace(networks=list),
        container_ends=ContainerEnds(),
        exposure=part,
        service_data_plane=SimpleNamespace(clients=clients),
    )
    agent = SimpleNamespace(require_components=lambda: components)
    answer = await verify.verify(cast("Any", agent), VerifyRequest(repair="1"))
    assert [each["text"] for each in answer["differences"]] == ["netns:web: eth0 is down"]
    assert answer["repaired"]
