"""This host's settings of EVPN on disk, for root alone: they may hold a password.

`evpn.json` has the settings in use. It is a file of its own, because FRR's supervisor ends when it
is gone, whatever else happens. `evpn-host.json` has what was decided on this host; without it, the
settings in use are the host's own, as agents before the cluster's record wrote them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from overlay.core.evpn.cluster_settings import HostChoice
from overlay.core.evpn.settings import EvpnSettings, parse_settings, settings_text
from overlay.errors import OverlayError
from overlay.kernel.evpn.supervisor import SETTINGS_NAME

_CHOICE_NAME = "evpn-host.json"


class SettingsFile:
    """The settings in use, if EVPN is enabled; and what was decided on this host."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / SETTINGS_NAME
        self.choice_path = state_dir / _CHOICE_NAME

    def read(self) -> EvpnSettings | None:
        """Return the settings in use, or None. Raises OverlayError if they cannot be read."""
        found = _read(self.path)
        return None if found is None else _settings(self.path, found)

    def write(self, settings: EvpnSettings) -> None:
        """Write the settings in use, whole or not at all. Raises OSError."""
        _write(self.path, settings_text(settings))

    def delete(self) -> None:
        """Delete the settings in use. Raises OSError."""
        self.path.unlink(missing_ok=True)

    def read_choice(self) -> HostChoice:
        """Return what was decided on this host. Raises OverlayError if it cannot be read."""
        found = _read(self.choice_path)
        if found is None:
            return HostChoice(own=self.read())
        own = found.get("own")
        return HostChoice(
            None if own is None else _settings(self.choice_path, own),
            found.get("is_out") is True,
            str(found.get("password", "")),
        )

    def write_choice(self, choice: HostChoice) -> None:
        """Write what was decided on this host, whole or not at all. Raises OSError."""
        own = None if choice.own is None else settings_text(choice.own)
        _write(
            self.choice_path,
            {"own": own, "is_out": choice.is_out, "password": choice.password},
        )

    def delete_choice(self) -> None:
        """Delete what was decided on this host. Raises OSError."""
        self.choice_path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(found, dict):
        raise _unreadable(path, TypeError("it holds no JSON object"))
    return found


def _settings(path: Path, fields: Any) -> EvpnSettings:
    try:
        return parse_settings(**fields)
    except (ValueError, TypeError, OverlayError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> OverlayError:
    return OverlayError(
        f"the settings of EVPN in {path} cannot be read",
        why=str(error),
        hint="Give them again: sudo overlayd evpn enable --asn N --neighbor ADDRESS",
    )


def _write(path: Path, document: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w", encoding="ascii") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
