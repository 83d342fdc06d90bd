"""Metrics of a made-up member, with every family that an agent can show."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from overlay import prometheus
from overlay.agent.api.metrics.evpn_families import EvpnFacts
from overlay.agent.api.metrics.facts import (
    MemberFacts,
    NetworkFacts,
    PeerFacts,
    ServiceFacts,
    SubnetFacts,
)
from overlay.agent.api.metrics.families import families
from overlay.agent.api.metrics.policy_families import PolicyFacts
from overlay.agent.api.metrics.process import ProcessFacts
from overlay.agent.dataplane.traffic import NetworkTraffic
from overlay.agent.policy.counters import PolicyCount
from overlay.core.dataplane.traffic import TrafficCounters
from overlay.core.paths.view import PathState, PathView
from overlay.core.services.derivation import BackendState
from overlay.model import NodeId

API = (Path(__file__).parents[1] / "docs/API.md").read_text(encoding="utf-8")
PROCESS = ProcessFacts(1_700_000_000.25, 1.5, 60_000_000, 40)
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def documented_status() -> dict[str, Any]:
    """Return the status document in docs/API.md."""
    raw = API.split("### GET /v1/status", 1)[1].split("```json\n", 1)[1].split("```", 1)[0]
    found: dict[str, Any] = json.loads(raw)
    return found


def path(**changed: Any) -> PathView:
    """Return a path that works, with changes."""
    works = PathView(
        NodeId(bytes(16)),
        PathState.OK,
        PathState.OK,
        since=0.0,
        size_expected=1500,
        size_carried=1500,
        size_fails=False,
        probe_count=50,
        probe_lost_count=2,
    )
    return replace(works, **changed)


def member_facts(**changed: Any) -> MemberFacts:
    """Return what a member with one peer and one network measures, with changes."""
    peers = [PeerFacts("n-00000001", "vm1", 0.0005, path())]
    carried = TrafficCounters(1000, 10, 2000, 20)
    networks = [NetworkFacts(9_000_001, 1, 3, NetworkTraffic(carried, carried, {}))]
    subnets = [SubnetFacts(9_000_001, "10.32.0.0/16", 3, 65_000, 30_000)]
    services = [ServiceFacts(9_000_001, "web", {BackendState.READY: 2})]
    given: dict[str, Any] = {
        "peers": peers, "networks": networks, "subnets": subnets, "services": services,
    }  # fmt: skip
    given["evpn"] = EvpnFacts({"10.0.0.1": True, "10.0.0.2": False}, 4, 12, 12, 2, 0, 1)
    given["policies"] = [PolicyFacts(9_000_001, "db", PolicyCount(12, 3))]
    return MemberFacts(**given | changed)


def example_text() -> str:
    """Return all metrics of that member."""
    return prometheus.text(families(documented_status(), PROCESS, member_facts()))


def exported_names() -> set[str]:
    """Return the names of all series that an agent can export."""
    return {name for name, _, _ in SAMPLE.findall(example_text())}
