"""Places for the API's requests and event streams, shared out among users.

Owns: how many of each a user may hold at once, so that nobody keeps the others out.
Does not: know requests, or who may call (`server`).
"""

from __future__ import annotations

import collections
from types import TracebackType
from typing import Self

from overlay import limits
from overlay.errors import OverlayError

_ROOT = 0


class RequestSlots:
    """The requests and event streams in progress, by user id."""

    def __init__(self) -> None:
        self._requests: collections.Counter[int] = collections.Counter()
        self._followers: collections.Counter[int] = collections.Counter()

    def take(self, uid: int) -> RequestSlot:
        """Return a place for one request of a user; raises OverlayError if there is none."""
        if uid != _ROOT:
            _require_room(self._requests[uid], limits.API_REQUESTS_PER_USER_MAX, "of this user")
            others = self._requests.total() - self._requests[_ROOT]
            room = limits.API_CLIENTS_MAX - limits.API_ROOT_RESERVE
            _require_room(others, room, "of users other than root")
        _require_room(self._requests.total(), limits.API_CLIENTS_MAX, "in total")
        return RequestSlot(self._requests, self._followers, uid)


class RequestSlot:
    """One request's place; it is given back at the end of the `with` block."""

    def __init__(
        self, requests: collections.Counter[int], followers: collections.Counter[int], uid: int
    ) -> None:
        self._followers = followers
        self._uid = uid
        self._held = requests
        requests[uid] += 1

    def __enter__(self) -> Self:
        """Return the place itself."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Give the place back."""
        _decrement(self._held, self._uid)

    def follow(self) -> None:
        """Exchange the place for that of an event stream, which has no time limit.

        Raises OverlayError if there is none; the place stays a request's then.
        """
        held = self._followers[_ROOT]
        room, of_whom = limits.API_CLIENTS_MAX, "of root"
        if self._uid != _ROOT:
            held = self._followers.total() - held
            room, of_whom = limits.API_FOLLOWERS_MAX, "of users other than root"
        if held >= room:
            raise OverlayError(
                f"the agent already sends events to {held} readers {of_whom}",
                why=f"at most {room} may follow events at once",
                hint="End one of them, or read the recent events without --follow",
            )
        self._followers[self._uid] += 1
        _decrement(self._held, self._uid)
        self._held = self._followers


def _require_room(held: int, room: int, of_whom: str) -> None:
    if held >= room:
        raise OverlayError(
            f"the agent already serves {held} requests {of_whom}",
            why=f"at most {room} are served at once",
            hint="Wait for them and try again",
        )


def _decrement(counter: collections.Counter[int], uid: int) -> None:
    counter[uid] -= 1
    if not counter[uid]:
        del counter[uid]
