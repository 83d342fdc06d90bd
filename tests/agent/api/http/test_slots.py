"""Places for the API's requests and event streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import pytest
from overlay import limits
from overlay.agent.api.http.slots import RequestSlot, RequestSlots
from overlay.errors import OverlayError

ROOT, ONE = 0, 1000


def taken(slots: RequestSlots, uids: Iterable[int]) -> list[RequestSlot]:
    """Take a place for each of the users, as far as there are any."""
    held = []
    for uid in uids:
        with contextlib.suppress(OverlayError):
            held.append(slots.take(uid))
    return held


def test_one_user_has_a_share_only() -> None:
    """The others go on; the error has three parts."""
    slots = RequestSlots()
    assert len(taken(slots, [ONE] * 300)) == limits.API_REQUESTS_PER_USER_MAX

    with pytest.raises(OverlayError, match="already serves 64 requests of this user") as caught:
        slots.take(ONE)
    assert caught.value.why
    assert caught.value.hint
    assert len(taken(slots, [ONE + 1, ROOT])) == 2


def test_places_are_kept_for_root() -> None:
    """Any number of other users together leave them free."""
    slots = RequestSlots()
    users = [uid for uid in range(1000, 1010) for _ in range(100)]
    assert len(taken(slots, users)) == limits.API_CLIENTS_MAX - limits.API_ROOT_RESERVE

    assert len(taken(slots, [ROOT] * 300)) == limits.API_ROOT_RESERVE
    with pytest.raises(OverlayError, match="already serves 256 requests in total"):
        slots.take(ROOT)


def test_a_place_is_given_back() -> None:
    """Also by a request that fails."""
    slots = RequestSlots()
    for _ in range(2 * limits.API_REQUESTS_PER_USER_MAX):
        with pytest.raises(ZeroDivisionError), slots.take(ONE):
            raise ZeroDivisionError
        with slots.take(ONE) as slot:
            slot.follow()

    assert len(taken(slots, [ONE] * 300)) == limits.API_REQUESTS_PER_USER_MAX


def test_event_streams_take_no_place_of_requests() -> None:
    """They have a limit of their own, for all users but root together."""
    slots = RequestSlots()
    for uid in range(1000, 1000 + limits.API_FOLLOWERS_MAX):
        slots.take(uid).follow()
    with (
        slots.take(ONE) as slot,
        pytest.raises(OverlayError, match="already sends events to 32 readers") as caught,
    ):
        slot.follow()
    assert caught.value.why
    assert caught.value.hint

    assert len(taken(slots, [ONE] * 300)) == limits.API_REQUESTS_PER_USER_MAX
    assert len(taken(slots, [ROOT] * 300)) == (
        limits.API_CLIENTS_MAX - limits.API_REQUESTS_PER_USER_MAX
    )


def test_roots_event_streams_are_bounded() -> None:
    """They are counted apart from everybody else's."""
    slots = RequestSlots()
    for _ in range(limits.API_CLIENTS_MAX):
        slots.take(ROOT).follow()
    with pytest.raises(OverlayError, match="256 readers of root"):
        slots.take(ROOT).follow()
    with slots.take(ONE) as slot:
        slot.follow()
