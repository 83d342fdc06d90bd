"""The explanation of a wrong command line."""

from __future__ import annotations

import pytest
from overlay.cli.parser import build
from overlay.errors import UsageError
from overlay.lab.main import main as lab


def parse(words: list[str]) -> None:
    """Parse a command line as `overlayd` does."""
    args, unknown = build(words).parse_known_args(words)
    args.verb_parser.error(f"unrecognized arguments: {' '.join(unknown)}")


def error_of(line: str) -> UsageError:
    """Return the error of a command line."""
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    return caught.value


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("connect web", "attach"),
        ("disconnect web", "detach"),
        ("list", "endpoint ls"),
        ("nodes", "members"),
        ("ps", "container ls"),
        ("network list", "ls"),
        ("network delete blue", "rm"),
        ("network show blue", "inspect"),
        ("container run web", "add"),
        ("container remove web", "rm"),
        ("token new", "create"),
        ("network create x --driver vxlan", "overlay"),
        ("network create x --driver Overlay", "overlay"),
        ("atach web", "attach"),
        ("attach web --network blue --alais www", "--alias"),
        ("status --wait --tiemout=3", "--timeout"),
    ],
)
def test_what_was_meant_is_named(line: str, meant: str) -> None:
    """Words of other programs first, then the closest spelling."""
    assert f"did you mean {meant!r}?" in error_of(line).what


def test_two_options_that_exclude_each_other_are_named() -> None:
    """Both, as for other errors of two options."""
    assert error_of("graph --svg --dot").what == "--dot and --svg exclude each other"


def test_an_option_is_shown_with_its_values() -> None:
    """Not with its own name once more."""
    assert error_of("agent --fast-path maybe").why.startswith("--fast-path {auto,on,off}: ")


def test_dashes_make_no_option_alike() -> None:
    """--mtu is none of network create, and nothing like --opt."""
    assert "did you mean" not in error_of("network create blue --mtu 1400").what


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("attach", "usage: overlayd attach [OPTIONS] TARGET --network NETWORK"),
        (
            "network",
            (
                "usage: overlayd network "
                "{create,ls,inspect,rm,prune,connect,disconnect,set,plug,unplug}"
            ),
        ),
        ("promote", "usage: overlayd promote [OPTIONS] NODE"),
        ("promote a b", "usage: overlayd promote [OPTIONS] NODE"),
        ("nonsense", "usage: overlayd [OPTIONS] COMMAND"),
        ("token create --uses x", "--uses N: hosts that it admits (default: any number)"),
        ("token create --uses", "--uses N: hosts that it admits (default: any number)"),
        ("token create --uses-x", "usage: overlayd token create [OPTIONS]"),
    ],
)
def test_one_line_says_how_it_is_used(line: str, why: str) -> None:
    """The option that is wrong, or what the command needs: not all of its usage."""
    error = error_of(line)

    assert error.why == why
    assert error.hint.endswith("--help")


def test_one_of_two_is_missing() -> None:
    """Both are named."""
    assert error_of("encryption on").what == "missing: NETWORK or --all"


@pytest.mark.parametrize("line", ["", "ups", "up --hosts x", "exec", "up --bogus"])
def test_the_lab_words_its_errors_alike(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines: what happened, why, what to do next."""
    assert lab(line.split()) == 2
    lines = capsys.readouterr().err.splitlines()

    assert [each[:8] for each in lines] == [lines[0][:8], "  why:  ", "  next: "]
    assert lines[0].startswith("error: ")
    assert "argument" not in lines[0]
