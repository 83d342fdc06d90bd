"""Health checks by programs that the operator of a host has installed, run for real."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from overlay.agent.services import installed_check
from overlay.agent.services.attempt import CheckPlace, attempt
from overlay.core.services.service import HealthCheck
from overlay.kernel import netns
from overlay.model import parse_ip

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's programs are run")
PATIENCE_S = 30.0  # a loaded machine


class SameNamespace:
    """A kernel whose calls run in another thread: the container is this process."""

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a call."""
        return await asyncio.to_thread(function, *arguments)


@pytest.fixture
def checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty directory of checks, in the only namespace there is."""
    monkeypatch.setattr(netns, "open_same", lambda _path, _identity: 0)
    for name in ("inside", "closing"):
        monkeypatch.setattr(netns, name, contextlib.nullcontext)
    made = tmp_path / "checks"
    made.mkdir(mode=0o755)
    monkeypatch.setattr(installed_check, "CHECKS_DIRECTORY", made)
    return made


def install(checks: Path, text: str, name: str = "db-ready", mode: int = 0o755) -> Path:
    """Install a check."""
    path = checks / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


async def tried(name: str = "db-ready", timeout_s: float = PATIENCE_S) -> str:
    """Try a check once."""
    check = HealthCheck("exec", name, 60.0, timeout_s, 3)
    place = CheckPlace("", (0, 0), parse_ip("10.32.0.7"), 5432, "db")
    return await attempt(cast("Any", SameNamespace()), check, place)


async def test_the_exit_status_decides(checks: Path) -> None:
    """A check that fails is described by the first line that it printed."""
    install(checks, "echo ready")
    assert await tried() == ""
    install(checks, "echo 'no \033 route' >&2; echo more; exit 3")
    assert await tried() == "exit status 3: no ? route"
    install(checks, "kill -9 $$")
    assert await tried() == "signal 9"


async def test_nothing_but_the_backend_is_in_the_environment(checks: Path) -> None:
    """No argument, no descriptor of the agent, nothing of its environment."""
    seen = checks / "seen"
    install(checks, f"env >{seen}; echo $# >>{seen}; ! test -e /proc/$$/fd/77")
    inherited = os.dup2(0, 77, inheritable=True)
    try:
        assert await tried() == ""
    finally:
        os.close(inherited)

    *variables, last = seen.read_text().splitlines()
    assert {each for each in variables if each.startswith("OVERLAYD_")} == {
        "OVERLAYD_ADDRESS=10.32.0.7", "OVERLAYD_PORT=5432", "OVERLAYD_SERVICE=db",
    }  # fmt: skip
    assert {each.partition("=")[0] for each in variables} <= {
        "OVERLAYD_ADDRESS", "OVERLAYD_PORT", "OVERLAYD_SERVICE", "PATH", "PWD", "_", "SHLVL",
        "OLDPWD",
    }  # fmt: skip
    assert last == "0"


async def test_one_that_takes_too_long_ends_with_its_children(checks: Path) -> None:
    """The group is killed, so nothing gathers on the host."""
    pids = checks / "pids"
    install(checks, f"sleep 600 & echo $! $$ >{pids}.new; mv {pids}.new {pids}; wait")

    trial = asyncio.ensure_future(tried())
    await until(pids.exists)
    trial.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await trial
    await until(lambda: not any(map(is_running, pids.read_text().split())))
    assert await tried(timeout_s=0.05) == "no answer within 0.05 s"


async def test_children_end_with_the_check(checks: Path) -> None:
    """Also those of one that passes."""
    pid = checks / "pid"
    install(checks, f"sleep 600 >/dev/null 2>&1 & echo $! >{pid}")
    assert await tried() == ""
    await until(lambda: not is_running(pid.read_text().strip()))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something outside of this process."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nothing here tells when
            await asyncio.sleep(0.01)


def is_running(pid: str) -> bool:
    """Return whether a process is there, and no zombie that nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second where it is reaped in between
        return False


async def test_output_is_bounded(checks: Path) -> None:
    """A check that prints without end waits for its timeout; a line is cut."""
    install(checks, "yes")
    assert await tried(timeout_s=1.0) == "no answer within 1 s"
    install(checks, "head -c 5000 /dev/zero | tr '\\0' x; exit 1")
    assert await tried() == f"exit status 1: {'x' * 200}"


def shared_directory(checks: Path) -> str:
    """Let others write the directory."""
    install(checks, "true")
    checks.chmod(0o777)
    return "checks must be root's, and writable for nobody else"


def shared_file(checks: Path) -> str:
    """Let others write the file."""
    install(checks, "true", mode=0o775)
    return "db-ready must be root's, and writable for nobody else"


def somebodys_file(checks: Path) -> str:
    """Give the file to another user."""
    os.chown(install(checks, "true"), 65534, 65534)
    return "db-ready must be root's, and writable for nobody else"


def link(checks: Path) -> str:
    """Install a symbolic link to a program."""
    (checks / "db-ready").symlink_to("/bin/true")
    return "db-ready is not a regular file"


def plain_file(checks: Path) -> str:
    """Install a file that is no program."""
    install(checks, "true", mode=0o644)
    return "db-ready is not executable (chmod 755)"


def nothing(_checks: Path) -> str:
    """Install nothing."""
    return "db-ready is not installed on this host"


@pytest.mark.parametrize(
    "prepare", [shared_directory, shared_file, somebodys_file, link, plain_file, nothing]
)
async def test_only_what_root_alone_installed_runs(
    checks: Path, prepare: Callable[[Path], str]
) -> None:
    """Anything else fails the check, and says why."""
    expected = prepare(checks)
    assert (await tried()).endswith(expected)


async def test_a_program_that_the_kernel_refuses_fails(checks: Path) -> None:
    """As one of another machine does."""
    (checks / "db-ready").write_bytes(b"\x7fELF not a program")
    (checks / "db-ready").chmod(0o755)
    assert await tried() == "exec format error"


def open_descriptors() -> set[str]:
    """Return the numbers of this process's descriptors, less that of looking."""
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
async def test_one_without_a_descriptor_is_ended(
    checks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has none left: nobody would wait for the check, or read what it prints."""
    install(checks, f"touch {tmp_path}/started; sleep 1000")

    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    before = open_descriptors()
    assert await tried() == "too many open files"
    assert open_descriptors() <= before


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
async def test_one_that_is_cancelled_twice_leaves_nothing(
    checks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its time is up, and then the service is removed."""
    install(checks, f"touch {tmp_path}/started; sleep 1000")
    ending = asyncio.Event()

    async def held_up(_pidfd: int) -> None:
        ending.set()
        await asyncio.Event().wait()

    before = open_descriptors()
    monkeypatch.setattr(installed_check, "_wait_until_ended", held_up)
    trial = asyncio.create_task(tried())
    await until((tmp_path / "started").exists)
    trial.cancel()
    await ending.wait()
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert open_descriptors() <= before
