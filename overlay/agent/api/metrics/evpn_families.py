"""The metrics of BGP EVPN; none while it is disabled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from overlay.prometheus import Family, Sample


@dataclass(frozen=True, slots=True)
class EvpnFacts:
    """This host's part in EVPN, as numbers."""

    sessions: dict[str, bool] = field(default_factory=dict)  # by neighbor: at most eight
    announced: int = 0
    macs: int = 0
    addresses: int = 0
    refused_outside: int = 0
    refused_over_limit: int = 0
    conflicts: int = 0


def evpn_families(facts: EvpnFacts) -> Iterator[Family]:
    """Yield the metrics."""
    yield Family(
        "overlayd_evpn_session_up",
        "1 if there is a BGP session with the neighbor.",
        [Sample(int(up), (("peer", name),)) for name, up in sorted(facts.sessions.items())],
    )
    yield Family(
        "overlayd_evpn_announced_rows",
        "MACs and addresses that this host announces by BGP EVPN.",
        [Sample(facts.announced)],
    )
    yield Family(
        "overlayd_evpn_macs",
        "MACs behind outside VTEPs that this host takes of the fabric.",
        [Sample(facts.macs)],
    )
    yield Family(
        "overlayd_evpn_addresses",
        "Addresses behind outside VTEPs that this host takes of the fabric.",
        [Sample(facts.addresses)],
    )
    yield Family(
        "overlayd_evpn_refused_rows",
        "Rows of the fabric that are refused at present.",
        [
            Sample(facts.refused_outside, (("reason", "outside-prefix"),)),
            Sample(facts.refused_over_limit, (("reason", "over-limit"),)),
        ],
    )
    yield Family(
        "overlayd_evpn_conflicts",
        "Addresses and MACs of records that the fabric has elsewhere.",
        [Sample(facts.conflicts)],
    )
