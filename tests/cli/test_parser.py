"""The tree of verbs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from overlay.agent.process.config import Config
from overlay.cli.parser import EPILOG, VERBS, build, first_word
from overlay.cli.shells.tree import commands
from overlay.errors import UsageError
from overlay.lab.main import command_parser as lab_parser
from overlay.lab.main import main as lab_main
from overlay.sim.main import command_parser as sim_parser
from overlay.sim.main import main as sim_main

COMMANDS_PAGE = Path(__file__).parent.parent.parent / "docs/operate/commands.md"
READING = [
    ("status",), ("top",), ("members",), ("verify",), ("events",),
    ("token", "show"), ("token", "ls"),
    ("network", "ls"), ("network", "inspect"), ("endpoint", "ls"), ("container", "ls"),
    ("version",), ("ipam",), ("key", "status"),
    ("dns", "ls"), ("dns", "lookup"), ("dns", "add"), ("dns", "rm"), ("authority", "ls"),
    ("config", "check"), ("config", "show"), ("doctor",),
    ("report",), ("graph",),
    ("service", "ls"), ("service", "inspect"), ("service", "ps"),
    ("policy", "ls"), ("policy", "inspect"), ("policy", "test"),
    ("router", "ls"), ("router", "inspect"),
    ("ping",), ("trace",), ("capture",), ("netcheck",),
    ("encryption", "status"), ("docker-plugin", "status"), ("web",),
    ("evpn", "status"), ("evpn", "ls"),
]  # fmt: skip
WRITING = [
    ("metrics",), ("join",), ("leave",), ("reset",), ("forget",),
    ("token", "create"), ("token", "revoke"), ("promote",),
    ("key", "rotate"), ("encryption", "off"), ("encryption", "on"), ("encryption", "rotate"),
    ("evpn", "enable"), ("evpn", "disable"), ("evpn", "run"),
    ("authority", "export"), ("authority", "import"),
    ("network", "create"), ("network", "rm"), ("network", "prune"), ("network", "set"),
    ("network", "plug"), ("network", "unplug"),
    ("apply",), ("export",),
    ("network", "connect"), ("network", "disconnect"),
    ("service", "create"), ("service", "set"), ("service", "rm"),
    ("policy", "create"), ("policy", "set"), ("policy", "rm"),
    ("router", "create"), ("router", "set"), ("router", "rm"),
    ("attach",), ("detach",), ("endpoint", "set"),
    ("container", "add"), ("container", "exec"), ("container", "rm"),
    ("expose",), ("unexpose",), ("publish",), ("unpublish",),
    ("docker-plugin", "install"), ("docker-plugin", "uninstall"),
    ("cni", "install"), ("cni", "uninstall"), ("netavark", "install"), ("netavark", "uninstall"),
    ("agent",), ("lab",), ("sim",), ("completion",), ("man",),
]  # fmt: skip


def test_exactly_the_specified_verbs_exist() -> None:
    """The parser has every specified verb and no others."""
    leaves = {command.path for command in commands(build()) if not command.verbs}

    assert leaves == {*READING, *WRITING}


@pytest.mark.parametrize("path", READING)
def test_every_reading_verb_takes_json(path: tuple[str, ...]) -> None:
    """Each verb that prints an answer has the option --json."""
    found = next(command for command in commands(build()) if command.path == path)

    assert any("--json" in option.flags for option in found.options)


def test_each_verb_is_registered_by_the_module_in_the_table() -> None:
    """The parser of a single verb equals that verb in the complete parser."""
    whole = {command.path: command for command in commands(build())}
    for verb in VERBS:
        own = {command.path: command for command in commands(build([verb]))}
        assert {path: own[path] for path in own if path[:1] == (verb,)} == {
            path: whole[path] for path in whole if path[:1] == (verb,)
        }


def test_the_table_and_the_modules_have_the_same_verbs() -> None:
    """Both list the same verbs in the same order."""
    root = next(iter(commands(build())))

    assert [word for word, _ in root.verbs] == list(VERBS)


@pytest.mark.parametrize(
    ("words", "verb", "rest"),
    [
        (["lab", "up"], "lab", ["up"]),
        (["--run-dir", "lab", "sim", "-x"], "sim", ["-x"]),
        (["--run-dir=lab", "sim"], "sim", []),
        (["--help"], None, []),
        ([], None, []),
    ],
)
def test_the_verb_is_found_after_options(
    words: list[str], verb: str | None, rest: list[str]
) -> None:
    """An option's value is not mistaken for the verb."""
    assert first_word(words) == (verb, rest)


@pytest.mark.parametrize("words", [["--run-dir", "/a", "status"], ["status", "--run-dir", "/a"]])
def test_path_options_work_before_and_after_the_verb(words: list[str]) -> None:
    """--run-dir means the same on either side of the verb."""
    assert build(words).parse_args(words).run_dir == "/a"


def test_every_help_text_can_be_formatted() -> None:
    """No help text has a stray percent sign."""

    def walk(parser: argparse.ArgumentParser) -> None:
        assert parser.format_help()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    walk(child)

    walk(build())


def test_help_and_page_name_the_same_exit_codes() -> None:
    """Each code with its meaning, those of single verbs included."""
    page = COMMANDS_PAGE.read_text().replace("`", "")

    def codes(text: str) -> list[tuple[str, str]]:
        said = " ".join(text.split()).split("xit codes: ")[1]
        return re.findall(r"(\d) ([^,.]+)", said.split(". ")[0])

    assert len(codes(EPILOG)) == 10
    assert codes(EPILOG) == codes(page)


def test_the_help_of_the_agent_names_the_configurations_defaults() -> None:
    """An option of the agent overrides the key of the same name."""
    (agent,) = (each for each in commands(build(["agent"])) if each.path == ("agent",))
    defaults = {
        option.flags[0].strip("-").replace("-", "_"): found[1]
        for option in agent.options
        if (found := re.search(r"default: as configured, or (\w+)", option.help))
    }

    assert defaults == {name: getattr(Config(), name) for name in ("fast_path", "native_path")}


def test_help_shows_how_a_network_setting_is_switched_off() -> None:
    """As well as how it is switched on."""
    (found,) = (each for each in commands(build(["network"])) if each.path == ("network", "set"))
    shown = {flag for option in found.options for flag in option.flags}

    assert {"--no-internal", "--no-port-security", "--no-any-name"} <= shown


def test_an_option_of_one_value_is_refused_twice() -> None:
    """In every verb: the first value would be lost. Others append, or are switches."""
    checked = 0

    def walk(parser: argparse.ArgumentParser, path: list[str]) -> None:
        nonlocal checked
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    walk(child, [*path, name])
            elif action.option_strings and action.nargs is None:
                value = str(next(iter(action.choices or ["1"])))
                words = [*path, *(max(action.option_strings, key=len), value) * 2]
                if isinstance(action, argparse._AppendAction):
                    continue
                with pytest.raises(UsageError, match="is given twice"):
                    build(words).parse_known_args(words)
                checked += 1

    walk(build(), [])
    assert checked > 50


def test_a_path_option_on_both_sides_of_the_verb_is_refused() -> None:
    """Neither is more right than the other."""
    words = ["--run-dir", "/a", "status", "--run-dir", "/b"]

    with pytest.raises(UsageError, match="--run-dir is given twice"):
        build(words).parse_args(words)


def test_no_option_may_be_abbreviated() -> None:
    """An abbreviation of today may be another option tomorrow."""
    checked = 0

    def walk(parser: argparse.ArgumentParser) -> None:
        nonlocal checked
        assert not parser.allow_abbrev
        checked += 1
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    walk(child)

    for parser in (build(), lab_parser(), sim_parser()):
        walk(parser)
    assert checked > 50


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (lab_main, ["up", "--hosts", "2", "--hosts", "3"]),
        (sim_main, ["--nodes", "2", "--nodes", "3"]),
    ],
)
def test_lab_and_sim_refuse_repeated_options(
    main: Callable[[list[str]], int], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As all other verbs do."""
    try:
        code, told = main(words), capsys.readouterr().err
    except UsageError as error:
        code, told = error.exit_code, str(error)

    assert (code, "is given twice" in told) == (2, True)
