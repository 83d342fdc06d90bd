"""Completion as it is typed: real shells on a terminal, and the Tab key."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.cli.completion import script
from overlay.cli.parser import build
from overlay.cli.shells import local_targets
from overlay.lab.host_process import HostProcess

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

WAIT_S = 60.0  # a loaded machine
SHOW = b"\x18\x12"  # C-x C-r: each shell below prints its line, between these:
HOST = HostProcess("vm7", 7)
SHOWN = re.compile(rb"\[\[(.*?)\]\]", re.DOTALL)
READY = b"ready>"
BASH = """
PS1='ready>'; bind 'set enable-bracketed-paste off'; bind 'set show-all-if-ambiguous on'
show() { printf '[''[%s]''] ' "$READLINE_LINE"; }; bind -x '"\\C-x\\C-r": show'
"""
ZSH = """
PROMPT='ready>'; unsetopt prompt_sp; autoload -Uz compinit; compinit -D
source $ZDOTDIR/script
show() { print -rn -- '[''['$BUFFER']''] ' }; zle -N show; bindkey '^X^R' show
"""
FISH = """
function fish_prompt; echo -n 'ready>'; end
bind \\cx\\cr 'echo -n "[""["(commandline)"]""] "'
"""


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._side, other = pty.openpty()
        self._shell = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=other, stdout=other, stderr=other, env=environ
        )
        os.close(other)
        try:
            self._until(lambda seen: READY in seen)
        except BaseException:
            self.end()
            raise

    def completes(self, line: str, whole: str) -> None:
        """Type a line and Tab until it becomes the whole one; fail after a minute.

        An agent that does not answer in a second has no words, so one Tab may be too early.
        """
        deadline = time.monotonic() + WAIT_S
        while (found := self._completed(line)) != whole:
            assert time.monotonic() < deadline, f"{line!r} became {found!r}, not {whole!r}"

    def _completed(self, line: str) -> str:
        """Type a line and Tab; return the line that the shell makes of it."""
        os.write(self._side, b"\x15" + line.encode() + b"\t" + SHOW)
        found = SHOWN.search(self._until(lambda seen: SHOWN.search(seen) is not None))
        assert found is not None
        return found[1].decode()

    def _until(self, enough: Callable[[bytes], bool]) -> bytes:
        """Read until the output is enough; fail after a minute."""
        seen, deadline = b"", time.monotonic() + WAIT_S
        while not enough(seen):
            assert time.monotonic() < deadline, f"the shell printed only {seen!r}"
            if select.select([self._side], [], [], 0.2)[0]:
                seen += os.read(self._side, 65536)
        return seen

    def end(self) -> None:
        """Kill the shell."""
        self._shell.kill()
        self._shell.wait(10)
        os.close(self._side)


@pytest.fixture
def environ(tmp_path: Path, agent: FakeAgent) -> dict[str, str]:
    """Return an environment with this overlayd, an agent, and Docker with two containers."""
    agent.answer("GET /v1/networks", {"networks": [{"name": "blue"}]})
    agent.answer("GET /v1/endpoints", {"endpoints": [{"target": "docker:old"}]})
    agent.answer("GET /v1/containers", {"containers": []})
    programs = tmp_path / "bin"
    programs.mkdir()
    root = Path(__file__).parent.parent.parent
    for name, text in {
        "overlayd": f'cd {root}; exec {sys.executable} -m overlay.cli.main "$@"',
        "docker": '[ "$*" = "ps --format {{.Names}}" ] && printf "old\\nnewest\\n"',
        "podman": "exit 125",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "TERM": "xterm",
        "OVERLAYD_RUN_DIR": str(agent.run_dir),
    }


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(
    request: pytest.FixtureRequest, tmp_path: Path, environ: dict[str, str]
) -> Iterator[Terminal]:
    """Return a terminal on which a shell has read its completion script."""
    name = str(request.param)
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "script").write_text(script(name, build()))
    first = tmp_path / {"bash": "first", "zsh": ".zshrc", "fish": "first"}[name]
    first.write_text({"bash": BASH, "zsh": ZSH, "fish": FISH}[name])
    command = {
        "bash": ["bash", "--noprofile", "--rcfile", str(first), "-i"],
        "zsh": ["zsh", "-d", "-i"],
        "fish": ["fish", "--no-config", "-C", f"source {tmp_path}/script; source {first}"],
    }[name]
    if name == "bash":
        first.write_text(f"{BASH}\nsource {tmp_path}/script\n")
    terminal = Terminal(command, environ | {"ZDOTDIR": str(tmp_path)})
    try:
        yield terminal
    finally:
        terminal.end()


def test_tab_completes_what_exists_now(shell: Terminal) -> None:
    """Verbs, networks, and the one container that is on no network yet, across its colon."""
    shell.completes("overlayd netw", "overlayd network ")
    shell.completes("overlayd network inspect b", "overlayd network inspect blue ")
    shell.completes("overlayd attach docker:", "overlayd attach docker:newest ")
    connect = "overlayd network connect blue docker:"
    shell.completes(f"{connect}n", f"{connect}newest ")
    shell.completes("overlayd detach docker:o", "overlayd detach docker:old ")
    shell.completes("overlayd lab he", "overlayd lab heal ")


def test_what_is_attached_is_not_offered(
    agent: FakeAgent, overlayd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an agent, everything that runs is offered."""
    monkeypatch.setattr(
        "overlay.cli.completion.running_targets", lambda: ["docker:web", "netns:n", "podman:db"]
    )
    endpoints = [{"target": "podman:db"}, {"target": None}]
    agent.answer("GET /v1/endpoints", {"endpoints": endpoints})
    ask = ("completion", "bash", "--words", "unattached")

    assert overlayd(*ask).out.split()[:3] == ["docker:web", "netns:n", "pid:"]
    agent.answer("GET /v1/endpoints", {"error": {"code": "internal"}}, 500)
    assert overlayd(*ask).out.split()[:3] == ["docker:web", "netns:n", "podman:db"]


def test_hosts_of_the_lab_are_offered(overlayd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found without an agent."""
    monkeypatch.setattr("overlay.lab.host_process.running", lambda: [HOST])

    assert overlayd("completion", "zsh", "--words", "lab-hosts").out == "vm7\n"


def test_an_engine_that_does_not_answer_has_no_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a missing nor a failing program stops completion."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_targets, "NAMESPACES", tmp_path / "none")
    assert local_targets.running_targets() == []

    (tmp_path / "docker").write_text("#!/bin/sh\necho web; exit 1\n")
    (tmp_path / "docker").chmod(0o755)
    (tmp_path / "podman").write_text("#!/bin/sh\necho db\n")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setattr(local_targets, "NAMESPACES", tmp_path)
    (tmp_path / "ov-1").touch()

    assert local_targets.running_targets() == ["podman:db", "netns:docker", "netns:podman"]
