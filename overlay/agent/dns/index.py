"""The endpoints and given names of a network by name, by alias and by address.

To look through 50,000 records takes 0.1 s, and containers ask by the second. So an index is made
when somebody asks after a change, and where changes come all the time no more often than that it
takes a fifth of the time: until then the names are a little old (0.4 s with 50,000 endpoints).
Must not know who is alive: that is asked of what was found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.model import Ip, Vni

_REST = 4.0  # times as long as the making took
_AGE_MAX_S = 30.0  # of one without changes: names given on a node end when its grace does


@dataclass(slots=True)
class NameIndex:
    """One network's records, as they were when it was made."""

    by_name: dict[str, list[PlacedEndpoint]] = field(default_factory=dict)
    by_alias: dict[str, list[PlacedEndpoint]] = field(default_factory=dict)
    by_ip: dict[Ip, list[PlacedEndpoint]] = field(default_factory=dict)
    custom: dict[str, list[Ip]] = field(default_factory=dict)
    custom_by_ip: dict[Ip, list[str]] = field(default_factory=dict)
    is_old: bool = False  # records have changed since
    made_at_s: float = 0.0
    took_s: float = 0.0


class NameIndexes:
    """An index of each network that is asked about."""

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._indexes: dict[int, NameIndex] = {}

    def changed(self, vni: int | None) -> None:
        """Note that records of a network (None: of any), or who is alive, changed."""
        for known, index in self._indexes.items():
            if vni in (None, known):
                index.is_old = True

    def of(self, vni: Vni) -> NameIndex:
        """Return the index of a network, made anew if need be."""
        now, found = self._clock(), self._indexes.get(vni)
        if found is not None:
            lasts_s = _REST * found.took_s if found.is_old else _AGE_MAX_S
            if now - found.made_at_s < lasts_s:
                return found
        made = self._make(vni)
        made.made_at_s = self._clock()
        made.took_s = made.made_at_s - now
        fresh = {k: each for k, each in self._indexes.items() if now - each.made_at_s < _AGE_MAX_S}
        self._indexes = {**fresh, vni: made}
        return made

    def _make(self, vni: Vni) -> NameIndex:
        index = NameIndex()
        for placed in map(PlacedEndpoint._make, self._directory.endpoints(vni)):
            endpoint = placed.endpoint
            index.by_name.setdefault(endpoint.name.lower(), []).append(placed)
            for alias in {alias.lower() for alias in endpoint.aliases}:
                index.by_alias.setdefault(alias, []).append(placed)
            for ip in endpoint.ips:
                index.by_ip.setdefault(ip, []).append(placed)
        for _, given in self._directory.custom_records(vni):
            index.custom.setdefault(given.name.lower(), []).extend(given.ips)
            for ip in given.ips:
                index.custom_by_ip.setdefault(ip, []).append(given.name)
        return index
