"""Networks that carry much: what they sent since they were last found busy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from overlay.agent.paths.busy_networks import BusyNetworks
from overlay.model import Vni

ONE, OTHER = Vni(7), Vni(8)


class Counters:
    """Sandboxes of networks, and what each has sent."""

    def __init__(self) -> None:
        self.sent: dict[Vni, int | None] = {ONE: 5_000_000, OTHER: 0}
        self.found = BusyNetworks(cast("Any", self), cast("Any", self))

    def runtime(self, vni: Vni) -> Any:
        """Return a network's sandbox, as the reconciler does."""
        return SimpleNamespace(sandbox=vni) if vni in self.sent else None

    async def call(self, _read: object, sandbox: Any) -> int | None:
        """Return what is read of a sandbox, as the kernel thread does."""
        return self.sent[sandbox]


async def test_a_network_is_busy_once_for_what_it_sent() -> None:
    """Bytes sent before the first reading do not count, and none count twice."""
    counters = Counters()
    wanted = {ONE: 1000, OTHER: 1000}
    assert await counters.found.find(wanted) == []
    counters.sent[ONE] = 5_000_600
    assert await counters.found.find(wanted) == []
    counters.sent[ONE] = 5_001_100
    assert await counters.found.find(wanted) == [ONE]
    assert await counters.found.find(wanted) == []


async def test_a_new_tunnel_counts_from_zero() -> None:
    """Also one whose counter cannot be read for a while, and a network that is gone."""
    counters = Counters()
    await counters.found.find({ONE: 1000})
    counters.sent[ONE] = 10
    assert await counters.found.find({ONE: 1000}) == []
    counters.sent[ONE] = 1010
    assert await counters.found.find({ONE: 1000}) == [ONE]
    counters.sent[ONE] = None
    assert await counters.found.find({ONE: 1000}) == []
    del counters.sent[ONE]
    assert await counters.found.find({ONE: 1000}) == []
