"""Which settings a host uses, over restarts and changes of the cluster's record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from overlay.agent.evpn.settings_choice import SettingsChoice
from overlay.core.evpn.cluster_settings import ClusterEvpn, HostChoice
from overlay.core.evpn.settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = parse_settings(65000, ["10.9.0.1"], ["10.9.0.0/16"], "")
OWN = parse_settings(65001, ["10.8.0.1"], ["10.8.0.0/16"], "")
RECORD = ClusterEvpn(SETTINGS, False)


class Host(SettingsChoice):
    """A host; the cluster's record is as a test says."""

    def __init__(self, folder: Path, record: ClusterEvpn | None, *, caught_up: bool = True) -> None:
        async def call(function: Any, *arguments: Any) -> Any:
            return function(*arguments)

        node = SimpleNamespace(caught_up=caught_up)
        context = SimpleNamespace(
            gossip=SimpleNamespace(node=node), directory=None, kernel=SimpleNamespace(call=call)
        )
        super().__init__(cast("Any", context), folder)
        self.known = record
        self.is_removed = False

    @property
    def is_recorded(self) -> bool:
        """Return whether this host has the record, or its removal."""
        return self.known is not None or self.is_removed

    @property
    def cluster(self) -> ClusterEvpn | None:
        """Return the record."""
        return self.known


async def test_a_host_follows_and_leaves_with_the_record(tmp_path: Path) -> None:
    """It enables EVPN, once; a removal disables it."""
    host = Host(tmp_path, RECORD)

    assert await host.follow()
    assert not await host.follow()
    assert (host.settings, host.chosen.source) == (SETTINGS, "cluster")
    host.known = None
    assert await host.follow()
    assert host.settings is None


async def test_a_start_keeps_what_the_record_said(tmp_path: Path) -> None:
    """Until the records of all members have arrived: it may be missing here alone."""
    await Host(tmp_path, RECORD).decide(HostChoice())
    again = Host(tmp_path, None, caught_up=False)
    await again.load()

    assert not await again.follow()
    assert again.settings == SETTINGS
    again.is_removed = True
    assert await again.follow()
    assert again.settings is None


@pytest.mark.parametrize("caught_up", [False, True])
async def test_a_decision_counts_at_once(tmp_path: Path, *, caught_up: bool) -> None:
    """Also on a host that has just started; and it survives the next start."""
    host = Host(tmp_path, None, caught_up=caught_up)
    assert await host.decide(HostChoice(own=OWN))
    assert await host.decide(HostChoice())
    assert host.settings is None
    host.known = RECORD
    assert await host.decide(HostChoice(is_out=True)) is False
    again = Host(tmp_path, RECORD, caught_up=caught_up)

    await again.load()

    assert not await again.follow()
    assert again.host.is_out
