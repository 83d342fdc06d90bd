"""`overlayd lab`: several hosts on this machine, for trials and tests."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence

from overlay.errors import ConflictError, OverlayError
from overlay.lab import host_process, lab, soak
from overlay.strict_arguments import StrictParser, with_command_apart
from overlay.usage_text import COMMAND


def main(argv: Sequence[str]) -> int:
    """Run a lab command; return the exit code."""
    try:
        return _run(_parser().parse_args(with_command_apart(list(argv), ("exec",))))
    except OverlayError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(arguments: argparse.Namespace) -> int:
    match arguments.verb:
        case "up":
            host_process.adopt_orphans()
            print(lab.up(arguments.hosts))
            print("\ntry:  overlayd lab exec vm2 -- overlayd status", file=sys.stderr)
            print("      overlayd lab down", file=sys.stderr)
        case "down":
            gone = [name for name in lab.down() if name != lab.SWITCH]
            text = f"removed {', '.join(gone)}" if gone else "no lab is up"
            print(text, file=sys.stderr)
        case "exec":
            command = arguments.command
            if command and command[0] == "--":
                command = command[1:]
            return lab.exec_in_host(arguments.host, command or ["bash"])
        case "soak":
            return _soak(arguments.minutes, arguments.seed)
        case "status":
            _show(arguments.json)
    return 0


def _soak(minutes: float, seed: int | None) -> int:
    if host_process.running():
        raise ConflictError("a lab is already up", hint="overlayd lab down")
    drawn = random.SystemRandom().randrange(1, 1_000_000) if seed is None else seed
    return soak.soak(minutes * 60, drawn, lambda text: print(text, flush=True))


def _show(as_json: bool) -> None:
    found = lab.status()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found["hosts"]:
        print("no lab is up; create one: overlayd lab up", file=sys.stderr)
    for host in found["hosts"]:
        members = (host.get("members") or {}).get("alive", "-")
        health = "; ".join(host.get("health", [])) or "ok"
        networks = " ".join(host.get("networks", [])) or "-"
        address = host.get("address") or "no agent"
        print(f"{host['name']:6}{address:16}members alive {members}  networks {networks}  {health}")


def _parser() -> argparse.ArgumentParser:
    parser = StrictParser(
        prog="overlayd lab", description="Run several hosts on this machine, as namespaces."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar=COMMAND)
    making = verbs.add_parser("up", help="create hosts, join them, attach containers, ping by name")
    making.add_argument(
        "--hosts", type=int, default=3, metavar="N", help="number of hosts (default 3)"
    )
    showing = verbs.add_parser("status", help="show the hosts")
    showing.add_argument("--json", action="store_true", help="print one JSON object")
    entering = verbs.add_parser("exec", help="run a command on a host")
    entering.add_argument("host", help="vm1, vm2, ...")
    entering.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND ...")
    soaking = verbs.add_parser("soak", help="attach and detach on real agents, and check for leaks")
    soaking.add_argument(
        "--minutes", type=float, default=10.0, metavar="N", help="duration (default 10)"
    )
    soaking.add_argument(
        "--seed", type=int, metavar="N", help="seed of an earlier run to repeat (default: random)"
    )
    verbs.add_parser("down", help="remove everything, also after a crash")
    return parser
