"""Index of a network's endpoints and custom records by name, alias and address.

Scanning 50,000 records takes 0.1 s, and containers send queries every second. So an index is
built on the first query after a change. Where records change all the time, it is rebuilt so
rarely that building takes a fifth of the time at most; until then, answers may be a little old
(0.4 s with 50,000 endpoints). Does not: know which nodes are alive, which is checked later for
the endpoints that were found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.agent.dns.records.tied_records import tied_records
from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.core.protocol.records import CustomRecord
from overlay.core.services.derivation import PlacedService
from overlay.model import Ip, NodeId, Vni

_REST_FACTOR = 4.0  # a stale index is kept for this many times as long as building it took
_AGE_MAX_S = 30.0  # of a current one: custom records of a dead node end when its grace period does


@dataclass(slots=True)
class NameIndex:
    """One network's records at the time when the index was built."""

    by_name: dict[str, list[PlacedEndpoint]] = field(default_factory=dict)
    by_alias: dict[str, list[PlacedEndpoint]] = field(default_factory=dict)
    by_ip: dict[Ip, list[PlacedEndpoint]] = field(default_factory=dict)
    custom: dict[str, list[Ip]] = field(default_factory=dict)
    custom_by_ip: dict[Ip, list[str]] = field(default_factory=dict)
    tied: dict[str, list[tuple[NodeId, CustomRecord]]] = field(default_factory=dict)
    tied_by_ip: dict[Ip, list[tuple[NodeId, CustomRecord]]] = field(default_factory=dict)
    services: dict[str, PlacedService] = field(default_factory=dict)
    services_by_ip: dict[Ip, str] = field(default_factory=dict)
    is_stale: bool = False  # records have changed since
    built_at_s: float = 0.0
    build_time_s: float = 0.0


class NameIndexes:
    """The indexes of the networks that are queried."""

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._indexes: dict[int, NameIndex] = {}

    def mark_stale(self, vni: int | None) -> None:
        """Mark a network's index (None: every index) as built from old records."""
        for known, index in self._indexes.items():
            if vni in (None, known):
                index.is_stale = True

    def of(self, vni: Vni) -> NameIndex:
        """Return the index of a network; build it if there is none or it is too old."""
        now, found = self._clock(), self._indexes.get(vni)
        if found is not None:
            lifetime_s = _REST_FACTOR * found.build_time_s if found.is_stale else _AGE_MAX_S
            if now - found.built_at_s < lifetime_s:
                return found
        index = self._build(vni)
        index.built_at_s = self._clock()
        index.build_time_s = index.built_at_s - now
        in_use = {
            k: each for k, each in self._indexes.items() if now - each.built_at_s < _AGE_MAX_S
        }
        self._indexes = {**in_use, vni: index}
        return index

    def _build(self, vni: Vni) -> NameIndex:
        index = NameIndex()
        for placed in map(PlacedEndpoint._make, self._directory.endpoints(vni)):
            endpoint = placed.endpoint
            index.by_name.setdefault(endpoint.name.lower(), []).append(placed)
            for alias in {alias.lower() for alias in endpoint.aliases}:
                index.by_alias.setdefault(alias, []).append(placed)
            for ip in endpoint.ips:
                index.by_ip.setdefault(ip, []).append(placed)
            for tied in tied_records(endpoint):
                index.tied.setdefault(tied.name, []).append((placed.origin, tied))
                for ip in {*tied.ips} - {*endpoint.ips}:
                    index.tied_by_ip.setdefault(ip, []).append((placed.origin, tied))
        for _, record in self._directory.custom_records(vni):
            index.custom.setdefault(record.name.lower(), []).extend(record.ips)
            for ip in record.ips:
                index.custom_by_ip.setdefault(ip, []).append(record.name)
        for entry in self._directory.services(vni):
            index.services[entry.service.name.lower()] = entry
            for ip in entry.service.ips:
                index.services_by_ip[ip] = entry.service.name
        return index
