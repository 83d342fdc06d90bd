"""The four collaborators that most components of a membership need, as one argument."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Gossip with the peers, lookups in the records, access to the kernel, and the event log."""

    gossip: GossipService
    directory: Directory
    kernel: KernelThread
    event_log: EventLog
