"""What joins networks with the host and the world beyond it, wired together.

Owns: construction order of the host's rules and ends, and when each is started and taken back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.exposure.controller import Exposure
from overlay.agent.exposure.eligibility import Exposable
from overlay.agent.exposure.host_endpoints import HostEnds
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.exposure.published_ports import Publishing
from overlay.agent.exposure.rules import HostRules
from overlay.agent.gossip.service import Member
from overlay.agent.ipam.allocator import Addresses
from overlay.agent.networks.participation import TakingPart
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.model import Vni


class Outside:
    """This host's side of its networks."""

    def __init__(
        self,
        config: Config,
        member: Member,
        directory: Directory,
        addresses: Addresses,
        datapath: Datapath,
        taking_part: TakingPart,
        kernel: KernelThread,
        journal: Journal,
        attachments: Attachments,
    ) -> None:
        self._interval_s = config.reconcile_interval_s
        self.rules = HostRules(member.node_id, kernel, journal, self._interval_s)
        ends = HostEnds(member, directory, addresses, datapath, kernel, journal, self.rules)
        self.exposure = Exposure(
            ends,
            Exposable(member.state, directory, ends, kernel, attachments),
            HostForwarding(ends, self.rules, kernel, journal, config.run_dir),
            member,
            directory,
            datapath,
            taking_part,
            kernel,
            journal,
        )
        self.publishing = Publishing(
            member, directory, self.exposure, self.rules, kernel, journal, attachments
        )
        self.exposure.changed = self.publishing.changed
        taking_part.is_kept = self.exposure.exposable.keeps
        taking_part.leaving = self.exposure.leaving

    async def arrived(self, vni: Vni) -> None:
        """Let what leads in and out work before the attach of a container returns."""
        await self.exposure.arrived(vni)
        if self.publishing.concerns(vni):
            await self.publishing.refresh()

    async def start(self) -> None:
        """Adopt what is there; before any pass may prune."""
        await self.publishing.start()
        await self.exposure.start()

    def tasks(self) -> Iterator[tuple[Callable[[], Awaitable[None]], str]]:
        """Yield what runs in the background, and its name."""
        yield self.rules.run, "host rules"
        yield partial(self.exposure.run, self._interval_s), "exposure"
        yield partial(self.publishing.run, self._interval_s), "publishing"

    async def mend(self) -> None:
        """Look at all of it now, and put it right."""
        await self.exposure.mend()
        await self.rules.apply(doubted=True)

    async def differences(self) -> list[str]:
        """Return how the host's namespace differs from what it should be."""
        return [*await self.exposure.differences(), *await self.rules.differences()]

    async def withdraw(self) -> None:
        """Before leaving the cluster: undo all of it."""
        await self.exposure.withdraw_all()

    def close(self) -> None:
        """Let go; all of it stays in force."""
        self.rules.close()
