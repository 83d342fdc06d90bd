from __future__ import annotations

import pytest
from overlay.cli.familiar_words import translated
from overlay.cli.parser import build
from overlay.cli.shells.tree import commands


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("", "--help"),
        ("help", "--help"),
        ("help network", "network --help"),
        ("help network remove", "network rm --help"),
        ("--version", "version"),
        ("-V", "version"),
        ("network list", "network ls"),
        ("container remove web", "container rm web"),
        ("token delete 1e1a62ac", "token rm 1e1a62ac"),
        ("node ls", "members"),
        ("node rm vm3", "forget vm3"),
        ("node promote vm2", "promote vm2"),
        ("node list --json", "members --json"),
    ],
)
def test_words_of_habit_are_understood(typed: str, meant: str) -> None:
    """Each is the command that other programs call so."""
    assert translated(typed.split()) == meant.split()


def test_list_and_remove_work_in_every_group() -> None:
    """Wherever there is `ls` or `rm`, also in groups that are added later."""
    for command in list(commands(build()))[1:]:
        *group, verb = command.path
        habit = {"ls": "list", "rm": "remove"}.get(verb)
        if group and habit:
            assert translated([*group, habit]) == [*group, verb]


@pytest.mark.parametrize(
    "typed",
    [
        "container exec web help",
        "attach list",
        "publish list 8080:80",
        "container add help",
        "-V x",
    ],
)
def test_names_stay_as_they_are(typed: str) -> None:
    """A container may have such a name, and its commands such words."""
    assert translated(typed.split()) == typed.split()
