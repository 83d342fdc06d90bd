"""Construct what explains the way between containers, and captures what takes it.

Owns: the construction order within these features, and what of them runs in the background. Does
not: explain or capture anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from overlay.agent.capture.answers import CaptureAnswers
from overlay.agent.capture.far_end import FarEnds
from overlay.agent.capture.plan import CapturePlanner
from overlay.agent.trace.context import WayContext
from overlay.agent.trace.half import HalfReader
from overlay.agent.trace.party import PartyFinder
from overlay.agent.trace.peers import TracePeers
from overlay.agent.trace.service import TraceService
from overlay.agent.trace.sightings import Sightings
from overlay.agent.trace.way import WayFinder


class Diagnosis:
    """The components behind `ping`, `trace` and `capture`."""

    def __init__(self, context: WayContext, *, captures_for_peers: bool) -> None:
        self.context = context
        node = context.node
        fabric = context.reconciler.fabric
        self.parties = PartyFinder(node.directory, context.attachments, fabric)
        self.ways = WayFinder(context)
        half = HalfReader(context, fabric)
        self.trace_peers = TracePeers(node, half)
        self.trace_service = TraceService(node, half, self.trace_peers)
        self.sightings = Sightings(context, is_allowed=captures_for_peers)
        self.capture_answers = CaptureAnswers(context, is_allowed=captures_for_peers)
        self.far_ends = FarEnds(node)
        self.capture_planner = CapturePlanner(context, self.parties, self.ways)

    @property
    def background(self) -> tuple[tuple[Callable[[], Awaitable[None]], str], ...]:
        """Return what runs as long as the membership, with its name."""
        return (
            (self.trace_peers.run, "trace answers"),
            (self.sightings.run, "sightings"),
            (self.capture_answers.run, "captures for members"),
        )

    def close(self) -> None:
        """Stop watching and capturing."""
        self.sightings.close()
        self.capture_answers.close()
        self.far_ends.close()
