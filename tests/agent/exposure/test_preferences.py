"""Stored exposure preferences."""

from __future__ import annotations

from pathlib import Path

from overlay.agent.exposure.preferences import ExposurePreferences
from overlay.agent.state.database import StateDatabase
from overlay.model import Vni

SHOWN, HIDDEN, OTHER = Vni(7), Vni(8), Vni(9)


class Services:
    """Services that publish ports of every host on some networks."""

    def __init__(self, *vnis: Vni) -> None:
        self._vnis = vnis

    def ingress_vnis(self) -> tuple[Vni, ...]:
        """Return the networks."""
        return self._vnis


def stored(directory: Path) -> StateDatabase:
    """Return a state with one network exposed and one hidden."""
    state = StateDatabase(directory)
    preferences = ExposurePreferences(state, Services())
    preferences.put(SHOWN, exposed=True)
    preferences.put(HIDDEN, exposed=False)
    return state


def test_preferences_are_durable(tmp_path: Path) -> None:
    """A later start reads them; without a command a network has none."""
    preferences = ExposurePreferences(stored(tmp_path), Services())

    assert dict(preferences) == {SHOWN: True, HIDDEN: False}
    assert preferences.without_containers() == [SHOWN]
    assert [preferences.needs_no_container(vni) for vni in (SHOWN, HIDDEN, OTHER)] == [
        True,
        False,
        False,
    ]


def test_a_dropped_preference_is_gone(tmp_path: Path) -> None:
    """It is deleted from memory and disk."""
    state = stored(tmp_path)
    preferences = ExposurePreferences(state, Services())

    preferences.drop(SHOWN)

    assert dict(preferences) == dict(ExposurePreferences(state, Services())) == {HIDDEN: False}


def test_a_disregarded_preference_stays_on_disk(tmp_path: Path) -> None:
    """If leaving the cluster fails halfway, the next start still knows it."""
    state = stored(tmp_path)
    preferences = ExposurePreferences(state, Services())

    preferences.disregard(SHOWN)
    preferences.disregard(OTHER)

    assert not preferences.needs_no_container(SHOWN)
    assert ExposurePreferences(state, Services()).needs_no_container(SHOWN)


def test_a_network_of_an_ingress_needs_no_container(tmp_path: Path) -> None:
    """Unless it is hidden by command, or this node leaves the cluster."""
    preferences = ExposurePreferences(stored(tmp_path), Services(HIDDEN, OTHER))

    assert preferences.without_containers() == [SHOWN, OTHER]
    preferences.disregard_records()
    assert preferences.without_containers() == [SHOWN]
