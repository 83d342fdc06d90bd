"""Where this host's agent lives: state, run directory, configuration file.

Owns: the order in which a flag, the environment, the configuration file and the default
decide. Must not know what is in those places.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

STATE_DIR = Path("/var/lib/overlayd")
RUN_DIR = Path("/run/overlayd")
CONFIG = Path("/etc/overlayd/overlayd.toml")
NAMES = ("state_dir", "run_dir", "config")
SOCKET_NAME = "api.sock"
LOG_NAME = "agent.log"


class Paths(NamedTuple):
    """The three paths, and which of them somebody chose (those are passed on to an agent)."""

    state_dir: Path
    run_dir: Path
    config: Path
    chosen: tuple[tuple[str, str], ...]  # (option, value) of every path not left to default

    @property
    def socket(self) -> Path:
        """The path of the agent's API socket."""
        return self.run_dir / SOCKET_NAME

    @property
    def log(self) -> Path:
        """The path of the log of an agent that `join` started itself."""
        return self.run_dir / LOG_NAME


def paths_of(args: Namespace, environ: Mapping[str, str]) -> Paths:
    """Return the places for parsed options: flag, then environment, then file, then default."""
    given = {name: text for name in NAMES if (text := _given(name, args, environ))}
    config = Path(given.get("config", CONFIG)).absolute()
    written = _from_file(config) | given
    return Paths(
        state_dir=Path(written.get("state_dir", STATE_DIR)).absolute(),
        run_dir=Path(written.get("run_dir", RUN_DIR)).absolute(),
        config=config,
        chosen=tuple(
            (f"--{name.replace('_', '-')}", str(Path(text).absolute()))
            for name, text in given.items()
        ),
    )


def _given(name: str, args: Namespace, environ: Mapping[str, str]) -> str | None:
    text: str | None = getattr(args, name, None)
    return text or environ.get(f"OVERLAYD_{name.upper()}")


def _from_file(path: Path) -> dict[str, str]:
    """Return the directories that the file names; a file with faults is the agent's to report."""
    try:
        text = path.read_bytes()
    except OSError:
        return {}
    if b"_dir" not in text:
        return {}
    import tomllib  # noqa: PLC0415  few files name directories: the rest need not pay for it

    try:
        table = tomllib.loads(text.decode(errors="replace"))
    except tomllib.TOMLDecodeError:
        return {}
    return {key: table[key] for key in ("state_dir", "run_dir") if isinstance(table.get(key), str)}
