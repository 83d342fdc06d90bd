"""This host's settings of EVPN on disk, for root alone: they may hold a password.

A file of its own, because FRR's supervisor ends when it is gone, whatever else happens.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from overlay.core.evpn.settings import EvpnSettings, parse_settings, settings_text
from overlay.errors import OverlayError
from overlay.kernel.evpn.supervisor import SETTINGS_NAME


class SettingsFile:
    """The settings, if EVPN is enabled."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / SETTINGS_NAME

    def read(self) -> EvpnSettings | None:
        """Return the settings, or None. Raises OverlayError if they cannot be read."""
        try:
            return parse_settings(**json.loads(self.path.read_text(encoding="ascii")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, OverlayError) as error:
            raise OverlayError(
                f"the settings of EVPN in {self.path} cannot be read",
                why=str(error),
                hint="Give them again: sudo overlayd evpn enable --asn N --neighbor ADDRESS",
            ) from error

    def write(self, settings: EvpnSettings) -> None:
        """Write the settings, whole or not at all. Raises OSError."""
        fresh = self.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w", encoding="ascii") as file:
            json.dump(settings_text(settings), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.path)

    def delete(self) -> None:
        """Delete them. Raises OSError."""
        self.path.unlink(missing_ok=True)
