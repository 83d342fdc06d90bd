"""Commands `agent`, `lab`, `sim`, `completion`, `man` and `version`.

Owns: their options. lab and sim are listed here for help and completion only; their own
modules parse the words after them.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path
from typing import TYPE_CHECKING

from overlay import __version__
from overlay.cli import output
from overlay.cli.parser import build
from overlay.client.api import ApiClient
from overlay.errors import OverlayError
from overlay.lean_imports import without_openssl

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

SHELLS = ("bash", "zsh", "fish")
PAGES = ("overlayd", "overlayd.toml")
DELEGATED = {
    "lab": "run several hosts on this machine, to try things and to test",
    "sim": "simulate a cluster on a lossy network, from a seed",
}
COMPLETION_DESCRIPTION = """\
Print the completion script for a shell.

  bash    source <(overlayd completion bash)
  zsh     overlayd completion zsh > "${fpath[1]}/_overlayd"
  fish    overlayd completion fish > ~/.config/fish/completions/overlayd.fish
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    agent = words.verb(
        "agent",
        run_agent,
        "run the agent in the foreground",
        "Run the agent in the foreground, as systemd does.  It exits on SIGTERM; forwarding\n"
        "continues without it.",
        json=False,
    )
    agent.add_argument(
        "--fast-path",
        choices=("auto", "on", "off"),
        help="forward unicast by eBPF instead of the bridge (default: as configured, or auto)",
    )
    agent.add_argument(
        "--native-path",
        choices=("auto", "on", "off"),
        help="put unicast into VXLAN, and take it out, by eBPF (default: as configured, or auto)",
    )
    for name, summary in DELEGATED.items():
        verb = words.verb(name, _never, summary, json=False)
        verb.add_argument("rest", nargs=argparse.REMAINDER, metavar="...")
    completion = words.verb(
        "completion",
        run_completion,
        "print the completion script for a shell",
        COMPLETION_DESCRIPTION,
        json=False,
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.add_argument("--words", dest="kind", metavar="KIND", help=argparse.SUPPRESS)
    manual = words.verb("man", run_man, "print a manual page (roff)", json=False)
    manual.add_argument(
        "page",
        nargs="?",
        choices=PAGES,
        default=PAGES[0],
        metavar="PAGE",
        help=f"{' or '.join(PAGES)} (default: {PAGES[0]})",
    )
    words.verb("version", run_version, "print the version")


def run_agent(args: Namespace) -> int:
    """Run the agent until it is stopped."""
    gc.disable()  # until it serves: what a start makes stays, and passes over it are 12 % of it
    with without_openssl():
        from overlay.agent.main import run  # noqa: PLC0415  slow to import

    chosen = {option: Path(text) for option, text in args.paths.chosen}
    return run(
        state_dir=chosen.get("--state-dir"),
        run_dir=chosen.get("--run-dir"),
        config_path=chosen.get("--config"),
        fast_path=args.fast_path,
        native_path=args.native_path,
    )


def _never(args: Namespace) -> int:
    """Never called: `main` passes these command lines to the verbs' own modules."""
    raise AssertionError(f"{args.verb} is delegated")


def run_completion(args: Namespace) -> int:
    """Print a completion script, or (called by that script) the candidates of a kind."""
    from overlay.cli import completion  # noqa: PLC0415  only this verb needs it

    if args.kind is None:
        output.print_result(completion.script(args.shell, build()))
        return 0
    try:
        known = completion.live_candidates(ApiClient(args.paths, timeout_s=1.0), args.kind)
    except OverlayError:
        return 0  # an error message would corrupt the line being completed
    if known:
        output.print_result("\n".join(known))
    return 0


def run_man(args: Namespace) -> int:
    """Print a manual page."""
    if args.page == PAGES[0]:
        from overlay.cli.manual import command_page  # noqa: PLC0415  only this verb needs it

        output.print_result(command_page.page(build()))
    else:
        from overlay.cli.manual import configuration_page  # noqa: PLC0415  as above

        output.print_result(configuration_page.page())
    return 0


def run_version(args: Namespace) -> int:
    """Print the version."""
    if args.json:
        output.print_json({"schema": "overlayd.version/v1", "version": __version__})
    else:
        output.print_result(f"overlayd {__version__}")
    return 0
