"""The names of one network's endpoints, so that a free one is known without reading all records.

Owns: how many endpoints have each name. Does not: know which of them count, or whose they are.
"""

from __future__ import annotations

from overlay.core.protocol.records import Value
from overlay.model import Endpoint, name_key


class EndpointNames:
    """How many of the endpoints that are held have each name, whatever its case."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._counts

    def replace(self, before: Value | None, after: Value | None) -> None:
        """Follow one value that takes the place of another; None: there is none."""
        if isinstance(after, Endpoint):
            name = name_key(after.name)
            self._counts[name] = self._counts.get(name, 0) + 1
        if isinstance(before, Endpoint):
            name = name_key(before.name)
            if self._counts[name] > 1:
                self._counts[name] -= 1
            else:
                del self._counts[name]
