"""Paths of this host's agent: state directory, run directory, configuration file.

Owns: the precedence of option, environment, configuration file and default.
Does not: know the content of the directories.
"""

from __future__ import annotations

from pathlib import Path

from overlay.errors import ConfigurationError, UsageError
from overlay.own_files import absolute_path

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

STATE_DIR = Path("/var/lib/overlayd")
RUN_DIR = Path("/run/overlayd")
CONFIG = Path("/etc/overlayd/overlayd.toml")
NETAVARK_PLUGIN = Path("/usr/local/libexec/netavark/overlayd")  # Podman finds it by its name
NAMES = ("state_dir", "run_dir", "config")
SOCKET_NAME = "api.sock"
LOG_NAME = "agent.log"


class Paths:
    """The three paths, the chosen ones (which are passed to a started agent), and a timeout.

    `chosen` has (option, value) of each path not left to default; `timeout_s` is for each answer of
    the agent, None as the request needs. `fault` says which directory of the file is none; the
    default is in its place.
    """

    def __init__(
        self,
        state_dir: Path,
        run_dir: Path,
        config: Path,
        chosen: tuple[tuple[str, str], ...],
        timeout_s: float | None = None,
        fault: ConfigurationError | None = None,
    ) -> None:
        self.state_dir = state_dir
        self.run_dir = run_dir
        self.config = config
        self.chosen = chosen
        self.timeout_s = timeout_s
        self.fault = fault

    @property
    def socket(self) -> Path:
        """Path of the agent's API socket."""
        return self.run_dir / SOCKET_NAME

    @property
    def log(self) -> Path:
        """Path of the log of an agent that `join` started itself."""
        return self.run_dir / LOG_NAME


def paths_of(args: Namespace, environ: Mapping[str, str]) -> Paths:
    """Return the paths of parsed options: option, then environment, file, default.

    Raises UsageError for a directory of an option or the environment that is relative.
    """
    given = {name: text for name in NAMES if (text := _given(name, args, environ))}
    for name in ("state_dir", "run_dir"):
        _require_absolute(name, given.get(name, "/"), args)
    config = Path(given.get("config", CONFIG)).absolute()
    written = _from_file(config)
    faults = [
        _file_fault(config, name, text)
        for name, text in written.items()
        if name not in given and absolute_path.fault(text)
    ]
    written = {name: text for name, text in written.items() if not absolute_path.fault(text)}
    written |= given
    return Paths(
        state_dir=Path(written.get("state_dir", STATE_DIR)),
        run_dir=Path(written.get("run_dir", RUN_DIR)),
        config=config,
        chosen=tuple(
            (f"--{name.replace('_', '-')}", str(Path(text).absolute()))
            for name, text in given.items()
        ),
        timeout_s=getattr(args, "timeout", None),
        fault=faults[0] if faults else None,
    )


def _given(name: str, args: Namespace, environ: Mapping[str, str]) -> str | None:
    text: str | None = getattr(args, name, None)
    return text or environ.get(f"OVERLAYD_{name.upper()}")


def _require_absolute(name: str, text: str, args: Namespace) -> None:
    why = absolute_path.fault(text)
    if not why:
        return
    option, variable = f"--{name.replace('_', '-')}", f"OVERLAYD_{name.upper()}"
    default = STATE_DIR if name == "state_dir" else RUN_DIR
    is_option = bool(getattr(args, name, None))
    raise UsageError(
        f"{option if is_option else variable} must be {absolute_path.WANTED}, not {text!r}",
        why=why,
        hint=f"Such as {option} {default}" if is_option else f"Such as {variable}={default}",
    )


def _file_fault(config: Path, name: str, text: str) -> ConfigurationError:
    return ConfigurationError(
        f"{config}: {name} must be {absolute_path.WANTED}, not {text!r}",
        why=absolute_path.fault(text),
        hint=f"Correct the file, then: overlayd config check {config}",
    )


def _from_file(path: Path) -> dict[str, str]:
    """Return the directories that the file names; the agent reports an invalid file."""
    try:
        text = path.read_bytes()
    except OSError:
        return {}
    if b"_dir" not in text:
        return {}
    import tomllib  # noqa: PLC0415  few files name directories

    try:
        table = tomllib.loads(text.decode(errors="replace"))
    except tomllib.TOMLDecodeError:
        return {}
    return {key: table[key] for key in ("state_dir", "run_dir") if isinstance(table.get(key), str)}
