"""The numbers of declared objects on the wire."""

from __future__ import annotations

import re

from overlay.core.declared import kinds
from tests.conftest import ROOT

NUMBERS = sorted(number for name, number in vars(kinds).items() if name.endswith("_KIND"))


def test_no_number_means_two_things() -> None:
    """Two kinds of one number would take each other's objects for damaged ones of their own."""
    assert sorted(set(NUMBERS)) == NUMBERS


def test_the_protocol_says_what_each_means() -> None:
    """In order, each once."""
    text = (ROOT / "docs/PROTOCOL.md").read_text(encoding="utf-8")
    table = text.partition("| kind of object | |\n|---|---|\n")[2].partition("\n\n")[0]
    assert [int(found) for found in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == NUMBERS
