"""Which settings of BGP EVPN this host uses, and from where it has them.

Owns: the files, and when a change of the cluster's record takes effect here. Does not: act on the
settings (`controller`), or write the record (the API's handlers).
"""

from __future__ import annotations

from pathlib import Path

from overlay.agent.evpn.settings_file import SettingsFile
from overlay.agent.gossip.context import NodeContext
from overlay.core.declared.kinds import EVPN_KIND
from overlay.core.evpn.cluster_settings import (
    EVPN_OBJECT,
    Chosen,
    ClusterEvpn,
    HostChoice,
    Source,
    choose,
    cluster_evpn,
)
from overlay.core.evpn.settings import EvpnSettings
from overlay.model import NodeId


class SettingsChoice:
    """The choice between this host's own settings, the cluster's, and none."""

    def __init__(self, context: NodeContext, state_dir: Path) -> None:
        self.host = HostChoice()
        self.chosen = Chosen()
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._file = SettingsFile(state_dir)

    @property
    def settings(self) -> EvpnSettings | None:
        """Return the settings in use; None while EVPN is disabled here."""
        return self.chosen.settings

    def record(self) -> tuple[NodeId, ClusterEvpn] | None:
        """Return the cluster's settings and their writer, if there are any."""
        declared = self._directory.declared
        return None if declared is None else cluster_evpn(declared)

    @property
    def cluster(self) -> ClusterEvpn | None:
        """Return the cluster's settings, if there are any."""
        found = self.record()
        return None if found is None else found[1]

    @property
    def is_recorded(self) -> bool:
        """Return whether there is a record, also one that removes the settings."""
        declared = self._directory.declared
        return declared is not None and declared.in_force(EVPN_KIND, EVPN_OBJECT) is not None

    async def load(self) -> None:
        """Read what was decided here, and the settings that were in use.

        Raises OverlayError if one of them cannot be read.
        """
        self.host = await self._kernel.call(self._file.read_choice)
        settings = await self._kernel.call(self._file.read)
        source: Source = "cluster" if self.host.own is None else "host"
        self.chosen = Chosen() if settings is None else Chosen(settings, source)

    async def decide(self, host: HostChoice) -> bool:
        """Keep what was decided on this host; return whether the settings in use are others.

        Raises OSError.
        """
        if host != self.host:
            await self._kernel.call(self._file.write_choice, host)
            self.host = host
        return await self._use(choose(self.host, self.cluster))

    async def follow(self) -> bool:
        """Use what host and cluster say now; return whether these settings are others.

        Raises OSError.
        """
        if self.chosen.source == "cluster" and self._may_have_missed_the_record():
            return False
        return await self._use(choose(self.host, self.cluster))

    async def _use(self, chosen: Chosen) -> bool:
        is_other = chosen.settings != self.settings
        if is_other and chosen.settings is not None:
            # First: without it, the settings in use would count as the host's own.
            await self._kernel.call(self._file.write_choice, self.host)
            await self._kernel.call(self._file.write, chosen.settings)
        elif is_other:
            await self._kernel.call(self._file.delete)
        self.chosen = chosen
        return is_other

    def _may_have_missed_the_record(self) -> bool:
        """Return whether the cluster's record may be missing here alone, after a start."""
        return not self.is_recorded and not self._gossip.node.caught_up

    async def forget(self) -> None:
        """Delete all of it: this node leaves. Raises OSError."""
        await self._kernel.call(self._file.delete)
        await self._kernel.call(self._file.delete_choice)
        self.host, self.chosen = HostChoice(), Chosen()
