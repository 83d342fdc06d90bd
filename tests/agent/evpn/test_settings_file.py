"""This host's settings of EVPN on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.agent.evpn.settings_file import SettingsFile
from overlay.core.evpn.cluster_settings import HostChoice
from overlay.core.evpn.settings import parse_settings
from overlay.errors import OverlayError

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = parse_settings(65000, ["10.9.0.1"], ["10.9.0.0/16"], "secret")


def test_settings_are_for_root_alone(tmp_path: Path) -> None:
    """Written, read by the next agent, replaced and deleted; they may hold a password."""
    stored = SettingsFile(tmp_path)
    assert stored.read() is None

    stored.write(SETTINGS)
    stored.write(SETTINGS)
    assert SettingsFile(tmp_path).read() == SETTINGS
    assert stored.path.stat().st_mode & 0o777 == 0o600
    stored.delete()
    stored.delete()

    assert stored.read() is None
    assert list(tmp_path.iterdir()) == []


def test_a_choice_survives_the_disk(tmp_path: Path) -> None:
    """Own settings, staying out, and a password; without the file, what is in use is own."""
    stored = SettingsFile(tmp_path)
    assert stored.read_choice() == HostChoice()
    stored.write(SETTINGS)
    assert stored.read_choice() == HostChoice(own=SETTINGS)

    for choice in (HostChoice(own=SETTINGS), HostChoice(is_out=True, password="secret")):
        stored.write_choice(choice)
        assert SettingsFile(tmp_path).read_choice() == choice

    assert stored.choice_path.stat().st_mode & 0o777 == 0o600
    stored.delete_choice()
    assert stored.read_choice() == HostChoice(own=SETTINGS)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"asn": 0}', '{"unknown": 1}'])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    """With the file, and how to give them again."""
    stored = SettingsFile(tmp_path)
    stored.path.write_text(text)

    with pytest.raises(OverlayError, match=str(stored.path)) as caught:
        stored.read()

    assert "evpn enable" in (caught.value.hint or "")
