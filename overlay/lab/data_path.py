"""The path that frames take on a lab's hosts, as OVERLAYD_LAB_DATA_PATH asks for it.

Owns: the configuration file that each new host gets, and the variable's values. Without the
variable a host has none, and so the defaults. Does not: verify that the path is taken.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from overlay.errors import UsageError
from overlay.lab.host_process import HostProcess

VARIABLE: Final = "OVERLAYD_LAB_DATA_PATH"
CONFIGURATIONS: Final = {
    "native": 'native_path = "auto"\n',
    "fast": 'fast_path = "on"\nnative_path = "off"\n',
    "bridge": 'fast_path = "off"\n',
}
_FILE: Final = "etc/overlayd/overlayd.toml"


def wanted() -> str:
    """Return the path that the environment asks for: native, fast, bridge; empty for none.

    Raises UsageError for another value.
    """
    name = os.environ.get(VARIABLE, "")
    if name and name not in CONFIGURATIONS:
        raise UsageError(
            f"{VARIABLE} names no path: {name!r}", hint=f"Use {', '.join(CONFIGURATIONS)}"
        )
    return name


def configure(host: HostProcess) -> None:
    """Write the configuration for the wanted path on a new host, before it has an agent."""
    name = wanted()
    if name:
        file = _file_of(host)
        file.parent.mkdir(exist_ok=True)
        file.write_text(CONFIGURATIONS[name], encoding="ascii")


def is_configured(host: HostProcess) -> bool:
    """Return whether a host's configuration is the one written here, not another's."""
    name = wanted()
    if not name:
        return False
    try:
        return _file_of(host).read_text(encoding="utf-8") == CONFIGURATIONS[name]
    except OSError:
        return False


def _file_of(host: HostProcess) -> Path:
    return Path(f"/proc/{host.pid}/root") / _FILE
