"""The manual page."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from overlay.cli.man import page
from overlay.cli.parser import build
from overlay.cli.shells.tree import commands


def test_every_verb_and_option_is_documented() -> None:
    """The generated page is complete."""
    text = page(build()).replace("\\-", "-")
    for command in commands(build()):
        if not command.verbs:
            assert f'.SS "overlayd {" ".join(command.path)}' in text
        for option in command.options:
            assert all(flag in text for flag in option.flags if flag not in ("-h", "--help"))


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_formats_it_without_warnings() -> None:
    """With all warnings enabled, groff prints none."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z"],
        input=page(build()),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert done.stderr == ""
