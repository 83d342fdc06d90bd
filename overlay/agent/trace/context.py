"""The sources that ways are explained from: records, attachments, planned rows, probed paths."""

from __future__ import annotations

from dataclasses import dataclass

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.gossip.context import NodeContext
from overlay.agent.paths.controller import PathController
from overlay.agent.policy.decider import PolicyDecider
from overlay.agent.state.attachments import Attachments


@dataclass(frozen=True, slots=True)
class WayContext:
    """The collaborators of everything that tells how frames travel from and to this host."""

    node: NodeContext
    attachments: Attachments
    reconciler: Reconciler
    paths: PathController
    policies: PolicyDecider
