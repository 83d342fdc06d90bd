"""The path that packets take on a lab's hosts: OVERLAYD_LAB_DATA_PATH, and OVERLAYD_LAB_GATE.

Owns: the configuration file that each new host gets, and the variables' values. Without them a
host has none, and so the defaults. Does not: verify that the path is taken.
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
GATE_VARIABLE: Final = "OVERLAYD_LAB_GATE"
_GATES: Final = ("auto", "on", "off")
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


def configuration() -> str:
    """Return what the environment asks for as a configuration; empty for the defaults.

    Raises UsageError for another value.
    """
    text = CONFIGURATIONS.get(wanted(), "")
    gate = os.environ.get(GATE_VARIABLE, "")
    if gate and gate not in _GATES:
        raise UsageError(f"{GATE_VARIABLE} is no choice: {gate!r}", hint=f"Use {', '.join(_GATES)}")
    return f'{text}gate = "{gate}"\n' if gate else text


def configure(host: HostProcess) -> None:
    """Write the configuration for the wanted path on a new host, before it has an agent."""
    text = configuration()
    if text:
        file = _file_of(host)
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="ascii")


def is_configured(host: HostProcess) -> bool:
    """Return whether a host's configuration is the one written here, not another's."""
    if not wanted():
        return False
    try:
        return _file_of(host).read_text(encoding="utf-8") == configuration()
    except OSError:
        return False


def _file_of(host: HostProcess) -> Path:
    return Path(f"/proc/{host.pid}/root") / _FILE
