"""Construct what this host counts and reports of its segments' controls."""

from __future__ import annotations

from overlay.agent.controls.drops import DropCounters
from overlay.agent.controls.storm_reports import StormReports
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.gossip.context import NodeContext
from overlay.agent.state.attachments import Attachments


class SegmentControls:
    """The counters of dropped frames, and the reports of storms."""

    def __init__(
        self, context: NodeContext, reconciler: Reconciler, attachments: Attachments
    ) -> None:
        self.drops = DropCounters(context.kernel, reconciler, attachments)
        self.storm_reports = StormReports(context, self.drops, attachments)
