"""The manual page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.agent.process.config import KINDS, read
from overlay.cli.manual import configuration_page
from overlay.cli.manual.command_page import page
from overlay.cli.manual.key_texts import TEXTS
from overlay.cli.manual.roff import literal
from overlay.cli.parser import build
from overlay.cli.shells.tree import commands

if TYPE_CHECKING:
    from tests.fake_agent import Run

ROOT = Path(__file__).parent.parent.parent


def test_every_verb_and_option_is_documented() -> None:
    """The generated page is complete."""
    text = page(build()).replace("\\-", "-")
    for command in commands(build()):
        if not command.verbs:
            assert f'.SS "overlayd {" ".join(command.path)}' in text
        for option in command.options:
            assert all(flag in text for flag in option.flags if flag not in ("-h", "--help"))


def test_every_key_of_the_configuration_is_documented() -> None:
    """With its default; the sample file says the same of it."""
    text = configuration_page.page().replace("\\-", "-")
    sample = (ROOT / "deploy/overlayd.toml").read_text()

    assert set(TEXTS) == set(KINDS)
    for key, told in TEXTS.items():
        assert f"\\fB{key} (" in text
        assert told in text
        assert re.search(rf"^# {key} = .*# {re.escape(told)}$", sample, re.MULTILINE), key


@pytest.mark.parametrize(("told", "lines"), configuration_page.EXAMPLES)
def test_an_example_of_the_page_is_a_valid_file(told: str, lines: str, tmp_path: Path) -> None:
    """It has values, and no error."""
    (tmp_path / "overlayd.toml").write_text(lines)
    found = read(tmp_path / "overlayd.toml")

    assert told.endswith(":")
    assert found.errors == []
    assert len(found.values) == 2


def test_the_verb_prints_either_page(overlayd: Run) -> None:
    """The commands' page is the default."""
    assert overlayd("man").out.startswith(".TH OVERLAYD 8 ")
    assert overlayd("man", "overlayd.toml").out.startswith(".TH OVERLAYD.TOML 5 ")
    assert overlayd("man", "overlayd.yaml").code == 2


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("text", [page(build()), configuration_page.page()], ids=["8", "5"])
def test_groff_formats_it_without_warnings(text: str) -> None:
    """With all warnings enabled, groff prints none."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("text", [page(build()), configuration_page.page()], ids=["8", "5"])
def test_no_line_is_wider_than_a_terminal(text: str) -> None:
    """Neither of text nor of examples."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-rLL=80n", "-P-cbou"],
        input=text, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip

    assert not [line for line in done.stdout.splitlines() if len(line) > 80]


def test_a_long_command_can_still_be_pasted() -> None:
    """It is continued between its words, never in quotes or before an option's value."""
    command = "  overlayd service ls --filter network=blue --format '{{.Name}} {{.Address}}' | sort"
    shown = [line.replace("\\e", "\\").replace("\\-", "-") for line in literal([command])][1:-1]

    assert shown == [
        "  overlayd service ls --filter network=blue \\",
        "      --format '{{.Name}} {{.Address}}' | sort",
    ]
    assert list(literal(["  overlayd x" + " " * 60 + "# why"])) == [
        ".nf", "  overlayd x  # why", ".fi",
    ]  # fmt: skip
