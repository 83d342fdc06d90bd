"""The commands that pages, examples and README show exist, with the options that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.cli.completion import tree
from overlay.cli.familiar_words import translated
from overlay.cli.parser import build

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
# In a block, a command begins a line, after a prompt or in another one; in text it is code.
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
IN_BLOCK = re.compile(
    r"^(?:[\w]+[#$] |[#$] )?(?:sudo |.*(?:\| |&& |-- |sudo ))?overlayd ([a-z].*)$", re.MULTILINE
)
IN_TEXT = re.compile(r"`(?:sudo )?overlayd ([a-z][^`]*)`")
END = re.compile(r" #|;| [|<>]|&&| -- |['\"`]|\bCOMMAND\b")
COMMANDS = {command.path: command for command in tree(build())}


def shown(page: Path) -> Iterator[str]:
    """Yield what a page has after the word overlayd."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.findall(text):
        yield from IN_BLOCK.findall(re.sub(r"\\\n\s*", "", block))
    yield from IN_TEXT.findall(BLOCK.sub("", text))


def wrong(line: str) -> str:
    """Return what is unknown in a command; empty if nothing is."""
    words = translated(END.split(f"{line} ")[0].split())
    if words == ["--help"]:
        return ""
    path: tuple[str, ...] = ()
    while len(path) < len(words) and (*path, words[len(path)]) in COMMANDS:
        path = (*path, words[len(path)])
    if not path or (COMMANDS[path].verbs and len(words) > len(path)):
        return words[len(path)]
    known = {flag for option in COMMANDS[path].options for flag in option.flags}
    known |= {flag for option in COMMANDS[()].options for flag in option.flags} | {"--help", "-h"}
    options = [word.partition("=")[0].strip("[],") for word in words if word.startswith("--")]
    return next((option for option in options if option not in known), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_of_the_page_exist(page: Path) -> None:
    """Those of overlayd, in blocks and in text."""
    found = {line: wrong(line) for line in shown(page)}

    assert {line: word for line, word in found.items() if word} == {}


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("network ls --quiet", ""),
        ("network remove blue; overlayd verify", ""),
        ("lab cut vm1 vm2 --one-way", ""),
        ("container exec c1 -- ip --colour", ""),
        ("network destroy blue", "destroy"),
        ("attach web --network blue --adress 10.32.0.9", "--adress"),
    ],
)
def test_what_does_not_exist_is_found(line: str, word: str) -> None:
    """A verb of a group, and an option of a verb; not those of other programs."""
    assert wrong(line) == word
