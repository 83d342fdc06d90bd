"""Stored exposure preferences."""

from __future__ import annotations

from pathlib import Path

from overlay.agent.exposure.preferences import ExposurePreferences
from overlay.agent.state.database import StateDatabase
from overlay.model import Vni

SHOWN, HIDDEN, OTHER = Vni(7), Vni(8), Vni(9)


def stored(directory: Path) -> StateDatabase:
    """Return a state with one network exposed and one hidden."""
    state = StateDatabase(directory)
    preferences = ExposurePreferences(state)
    preferences.put(SHOWN, exposed=True)
    preferences.put(HIDDEN, exposed=False)
    return state


def test_preferences_are_durable(tmp_path: Path) -> None:
    """A later start reads them; without a command a network has none."""
    preferences = ExposurePreferences(stored(tmp_path))

    assert dict(preferences) == {SHOWN: True, HIDDEN: False}
    assert preferences.exposed_by_hand() == [SHOWN]
    assert [preferences.is_exposed_by_hand(vni) for vni in (SHOWN, HIDDEN, OTHER)] == [
        True,
        False,
        False,
    ]


def test_a_dropped_preference_is_gone(tmp_path: Path) -> None:
    """It is deleted from memory and disk."""
    state = stored(tmp_path)
    preferences = ExposurePreferences(state)

    preferences.drop(SHOWN)

    assert dict(preferences) == dict(ExposurePreferences(state)) == {HIDDEN: False}


def test_a_disregarded_preference_stays_on_disk(tmp_path: Path) -> None:
    """If leaving the cluster fails halfway, the next start still knows it."""
    state = stored(tmp_path)
    preferences = ExposurePreferences(state)

    preferences.disregard(SHOWN)
    preferences.disregard(OTHER)

    assert not preferences.is_exposed_by_hand(SHOWN)
    assert ExposurePreferences(state).is_exposed_by_hand(SHOWN)
