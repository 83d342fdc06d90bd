"""The four collaborators that nearly every component of a membership needs, as one argument."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory


@dataclass(frozen=True, slots=True)
class NodeContext:
    """This node among its peers: what it says and hears, looks up, programs and logs."""

    gossip: GossipService
    directory: Directory
    kernel: KernelThread
    event_log: EventLog
