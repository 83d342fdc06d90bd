"""The components that this host's exposure depends on, as one argument."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.exposure.preferences import ExposurePreferences
from overlay.agent.frame_forwarding import FrameForwarding
from overlay.agent.gossip.context import NodeContext
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.state.attachments import Attachments
from overlay.model import Vni
from overlay.signals import AsyncSignal, Signal


@dataclass(frozen=True, slots=True)
class ExposureContext:
    """The other parts of this node, and the signals of its containers' endpoints."""

    node: NodeContext
    attachments: Attachments
    allocator: AddressAllocator
    participation: ParticipationService
    forwarding: FrameForwarding
    preferences: ExposurePreferences
    default_route_moved: Signal[[]]
    endpoint_attached: AsyncSignal[[Vni]]
    endpoint_renamed: AsyncSignal[[Vni, str, str]]
