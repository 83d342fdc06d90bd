"""The winner among remote endpoints that claim one address or MAC, as claims come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

from overlay.core.dataplane.planning.inputs import RemoteEndpoint
from overlay.model import Ip, Mac

KeyT = TypeVar("KeyT", Ip, Mac)


_TOUCHED_MANY: Final = 1000


class WinnerChange(NamedTuple, Generic[KeyT]):
    """An address or MAC has passed from one endpoint to another, or to or from none."""

    key: KeyT
    before: RemoteEndpoint | None
    after: RemoteEndpoint | None


Choose: TypeAlias = Callable[[KeyT, Sequence[RemoteEndpoint]], RemoteEndpoint | None]
"""Returns the winner of one or more claims, or None if nobody has what is claimed."""


class Claims(Generic[KeyT]):
    """The claims to the addresses, or to the MACs, of one segment.

    Nearly every address is claimed once: these cost one entry of a dictionary.
    """

    def __init__(self) -> None:
        self.winners: dict[KeyT, RemoteEndpoint] = {}
        self._all: dict[KeyT, list[RemoteEndpoint]] = {}  # unless the winner's is the only one
        self._touched: dict[KeyT, RemoteEndpoint | None] = {}  # with the winner before

    def claimants(self, key: KeyT) -> Sequence[RemoteEndpoint]:
        """Return the endpoints that claim an address or MAC."""
        found = self._all.get(key)
        if found is not None:
            return found
        winner = self.winners.get(key)
        return () if winner is None else (winner,)

    def add(self, key: KeyT, remote: RemoteEndpoint) -> None:
        """Add a claim, once for each endpoint."""
        claims = self._touch(key)
        if not any(each is remote for each in claims):
            claims.append(remote)

    def remove(self, key: KeyT, remote: RemoteEndpoint) -> None:
        """Remove a claim, if it is there."""
        claims = self._touch(key)
        claims[:] = [each for each in claims if each is not remote]

    def touch(self, key: KeyT) -> None:
        """Have `settle` choose again."""
        if key in self._all or key in self.winners:
            self._touch(key)

    def touch_contested(self) -> None:
        """Have `settle` choose again where there is a choice."""
        for key in self._all:
            self._touched.setdefault(key, self.winners.get(key))

    def _touch(self, key: KeyT) -> list[RemoteEndpoint]:
        winner = self.winners.get(key)
        self._touched.setdefault(key, winner)
        claims = self._all.get(key)
        if claims is None:
            claims = self._all[key] = [] if winner is None else [winner]
        return claims

    def settle(self, choose: Choose[KeyT]) -> Iterator[WinnerChange[KeyT]]:
        """Choose the winner where claims have changed; yield what is different now."""
        touched, self._touched = self._touched, {}
        for key, before in touched.items():
            claims = self._all[key]
            after = choose(key, claims) if claims else None
            if after is None:
                self.winners.pop(key, None)
            else:
                self.winners[key] = after
            if not claims or (after is not None and len(claims) == 1):
                del self._all[key]
            if before is not after:
                yield WinnerChange(key, before, after)
        if len(touched) > _TOUCHED_MANY:  # a dictionary that was large stays slow to iterate
            self._all = dict(self._all.items())
