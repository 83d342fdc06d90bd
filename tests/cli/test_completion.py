"""The completion scripts, run by their shells."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.cli.completion import live_candidates, script, tree
from overlay.cli.parser import build
from overlay.cli.shells.tree import commands
from overlay.strict_arguments import Metavar
from overlay.target_kinds import KINDS

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
needs_fish = pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH that begins with an `overlayd` of this tree."""
    program = tmp_path / "bin" / "overlayd"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m overlay.cli.main "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def _ask(shell: list[str], text: str, path: str, run_dir: Path | None = None) -> list[str]:
    environ = {"PATH": path, "HOME": "/nonexistent", "OVERLAYD_RUN_DIR": str(run_dir or "/none")}
    done = subprocess.run(
        shell, input=text, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.split()


def _bash(line: list[str], path: str, run_dir: Path | None = None) -> list[str]:
    typed = " ".join(line)
    text = (
        f"{script('bash', build())}\nCOMP_LINE='{typed}'; COMP_POINT={len(typed)}\n"
        '_overlayd; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    return _ask(["bash", "--norc"], text, path, run_dir)


@needs_bash
@pytest.mark.parametrize(
    ("line", "found"),
    [
        (["netw"], ["network"]),
        (
            ["network", ""],
            [
                "create",
                "ls",
                "inspect",
                "rm",
                "prune",
                "connect",
                "disconnect",
                "set",
                "plug",
                "unplug",
            ],
        ),
        (["--run-dir", "/x", "network", "i"], ["inspect"]),
        (["network", "create", "blue", "--su"], ["--subnet"]),
        (["attach", "web", "--wait", ""], ["all", "none", "start"]),
        (["attach", "web", "--wait", "n"], ["none"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["attach", "--network", "network", "--no-d"], ["--no-default-route"]),
        (["token", "s"], ["show"]),
        (["network", "create", "blue", "--driver=m"], ["macvlan"]),
        (["lab", "sl"], ["slow"]),
        (["lab", "cut", "vm1", "--only", ""], ["gossip", "vxlan"]),
        (["container", "exec", "web", "--", "network", ""], []),
    ],
)
def test_bash_completes_verbs_options_and_values(
    line: list[str], found: list[str], path: str
) -> None:
    """The words that can stand there, and no others."""
    assert _bash(["overlayd", *line], path) == found


@needs_bash
def test_bash_completes_files(path: str, tmp_path: Path) -> None:
    """The shell itself completes FILE and DIR."""
    (tmp_path / "token").touch()

    assert _bash(["overlayd", "join", "--token-file", f"{tmp_path}/to"], path) == [
        f"{tmp_path}/token"
    ]


@needs_bash
def test_bash_completes_names_from_the_agent(path: str, agent: FakeAgent) -> None:
    """Networks come from the running agent; without an agent there are none."""
    agent.answer("GET /v1/networks", {"networks": [{"name": "red"}, {"name": "blue"}]})
    line = ["overlayd", "network", "inspect", ""]

    assert _bash(line, path, agent.run_dir) == ["blue", "red"]
    assert _bash(line, path) == []


@needs_bash
def test_bash_completes_the_peers_of_policies(path: str, agent: FakeAgent) -> None:
    """Labels and names of containers, and networks; bash keeps what is before = and : itself."""
    web = {"name": "web1", "labels": {"app": "web"}}
    agent.answer("GET /v1/endpoints", {"endpoints": [web]})
    agent.answer("GET /v1/networks", {"networks": [{"name": "red"}]})
    agent.answer("GET /v1/policies", {"policies": [{"name": "db"}]})
    line = ["overlayd", "policy", "create", "db", "--from"]

    assert _bash([*line, ""], path, agent.run_dir) == [
        "label=app=web", "name=web1", "host", "world", "cidr:", "network:red",
    ]  # fmt: skip
    assert _bash([*line, "label=app=w"], path, agent.run_dir) == ["web"]
    assert _bash([*line, "network:"], path, agent.run_dir) == ["red"]
    assert _bash(["overlayd", "policy", "rm", ""], path, agent.run_dir) == ["db"]


@needs_bash
def test_bash_completes_routers(path: str, agent: FakeAgent) -> None:
    """By name, and the networks that one may connect."""
    agent.answer("GET /v1/routers", {"routers": [{"name": "r1"}]})
    agent.answer("GET /v1/networks", {"networks": [{"name": "red"}]})

    assert _bash(["overlayd", "router", "rm", ""], path, agent.run_dir) == ["r1"]
    assert _bash(["overlayd", "router", "set", "r1", "--add", ""], path, agent.run_dir) == ["red"]


@needs_zsh
def test_zsh_reads_its_script_without_errors(path: str) -> None:
    """The script defines a function for every verb."""
    text = (
        "autoload -Uz compinit; compinit -D\n"
        f"source =(cat <<'END'\n{script('zsh', build())}\nEND\n)\n"
        "print -l ${(ok)functions[(I)_overlayd*]}\n"
    )
    defined = _ask(["zsh", "-f"], text, path)

    expected = {"_".join(("_overlayd", *command.path)) for command in tree(build())}
    assert set(defined) == {*expected, "_overlayd_live"}


@needs_fish
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("overlayd netw", ["network"]),
        ("overlayd --run-dir /x network i", ["inspect"]),
        ("overlayd network create blue --su", ["--subnet"]),
        ("overlayd attach web --wait n", ["none"]),
    ],
)
def test_fish_completes_verbs_options_and_values(
    line: str, found: list[str], path: str, tmp_path: Path
) -> None:
    """The words that can stand there, and no others."""
    home = tmp_path / "home"
    home.mkdir()
    text = f"{script('fish', build())}\ncomplete -C '{line}'\n"
    environ = {"PATH": path, "HOME": str(home), "OVERLAYD_RUN_DIR": "/none"}
    done = subprocess.run(
        ["fish", "--no-config"],
        input=text, env=environ, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip

    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_verb_and_option_is_in_each_script(shell: str) -> None:
    """The generated scripts are complete."""
    text = script(shell, build())
    for command in tree(build()):
        for word, _ in command.verbs:
            assert word in text
        for option in command.options:
            assert any(flag.lstrip("-") in text for flag in option.flags)


def test_the_command_tree_is_read_from_argparse() -> None:
    """Options, choices and kinds (by METAVAR) are found; suppressed options are hidden."""
    parser = argparse.ArgumentParser(prog="x")
    parser.add_argument("--hidden", help=argparse.SUPPRESS)
    parser.add_argument("--file", metavar="FILE", help="50%% of it")
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("target", metavar=Metavar("TARGET", kind="unattached"), nargs="+")
    (command,) = commands(parser)

    assert [option.flags for option in command.options] == [("-h", "--help"), ("--file",)]
    assert command.options[1].help == "50% of it"
    assert command.options[1].value == ((), "files", False)
    assert command.options[0].value is None
    assert command.arguments == (((), "networks", False), ((), "unattached", True))


def test_live_candidates_are_names(agent: FakeAgent, overlayd: Run) -> None:
    """The names of each kind are printed one per line; errors print nothing."""
    agent.answer("GET /v1/members", {"members": [{"name": "vm2"}, {"name": "vm1"}]})
    agent.answer("GET /v1/containers", {"containers": [{"name": "c"}]})
    endpoints = [{"target": "docker:web"}, {"target": None}]
    agent.answer("GET /v1/endpoints", {"endpoints": endpoints})

    assert overlayd("completion", "bash", "--words", "nodes").out == "vm1\nvm2\n"
    assert overlayd("completion", "bash", "--words", "containers").out == "c\n"
    targets = overlayd("completion", "bash", "--words", "targets").out.split()
    assert targets == [
        "c",
        "docker:web",
        *(f"{kind.word}:" for kind in KINDS if kind.word != "docker"),
    ]
    agent.answer("GET /v1/networks", {"networks": [{"name": "blue"}]})
    places = overlayd("completion", "bash", "--words", "places").out
    assert places == "blue\nnone\nhost\ncontainer:c\n"
    outcome = overlayd("completion", "bash", "--words", "tokens")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_publish_offers_its_list_as_well(agent: FakeAgent, overlayd: Run) -> None:
    """`publish ls` is typed where a container's name is; `unpublish` has no such word."""
    agent.answer("GET /v1/endpoints", {"endpoints": [{"name": "web"}]})
    found = {each.path: each.arguments[0].kind for each in commands(build()) if each.arguments}

    assert overlayd("completion", "bash", "--words", found["publish",]).out == "web\nls\n"
    assert overlayd("completion", "bash", "--words", found["unpublish",]).out == "web\n"


def test_an_unknown_kind_has_no_candidates() -> None:
    """Only the kinds of METAVARs have candidates."""
    assert live_candidates(None, "stars") == []  # type: ignore[arg-type]
