"""`overlayd lab`: several hosts on this machine, for trials and tests."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence

from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.lab import explanation, host_process, lab, soak, underlay_faults
from overlay.lab.host_process import HostProcess
from overlay.lab.underlay_faults import PORTS, UnderlayFault
from overlay.strict_arguments import StrictParser, with_command_apart
from overlay.usage_text import COMMAND


def main(argv: Sequence[str]) -> int:
    """Run a lab command; return the exit code."""
    try:
        return _run(command_parser().parse_args(with_command_apart(list(argv), ("exec",))))
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
        case "explain":
            print(explanation.explain(lab.switch(), lab.members(), *arguments.containers))
        case "cut" | "slow" | "heal":
            _change_underlay(arguments)
    return 0


def _change_underlay(arguments: argparse.Namespace) -> None:
    switch = lab.switch()
    named = [lab.find(name) for name in arguments.hosts]
    match arguments.verb:
        case "cut":
            if len(named) > 2:
                raise UsageError("cut takes one host, or two", hint="overlayd lab cut vm2 vm3")
            first, second = named[0].name, named[1].name if len(named) > 1 else ""
            fault = UnderlayFault(first, second, arguments.one_way, arguments.only or "")
            underlay_faults.cut(switch, fault)
        case "slow":
            _slow(switch, named, arguments)
        case "heal":
            for text in underlay_faults.heal(switch, named or lab.members()):
                print(f"healed: {text}", file=sys.stderr)
    for text in _faults(switch):
        print(text)


def _slow(switch: HostProcess, hosts: list[HostProcess], arguments: argparse.Namespace) -> None:
    rate, delay, loss = arguments.rate or "", arguments.delay or "", arguments.loss
    if not (rate or delay or loss):
        raise UsageError("slow needs a fault", hint="Use --rate 10mbit, --delay 50ms or --loss 5")
    if loss is not None and not 1 <= loss <= 99:
        raise UsageError("--loss is a percentage from 1 to 99", hint="overlayd lab cut loses all")
    for host in hosts:
        if rate or delay:
            underlay_faults.slow(switch, host, rate=rate, delay=delay)
        if loss is not None:
            underlay_faults.cut(switch, UnderlayFault(host.name, percent=loss))


def _faults(switch: HostProcess) -> list[str]:
    cuts = [fault.text for fault in underlay_faults.active(switch)]
    return cuts + underlay_faults.slowed(switch, lab.members())


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
        members = (host["members"] or {}).get("alive", "-")
        health = "-" if host["health"] is None else "; ".join(host["health"]) or "ok"
        networks = " ".join(host["networks"]) or "-"
        address = host["address"] or "no agent"
        print(f"{host['name']:6}{address:16}members alive {members}  networks {networks}  {health}")
    if found["hosts"]:
        for text in _faults(lab.switch()):
            print(f"underlay: {text}")


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of the lab's commands."""
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
    entering.add_argument("host", metavar="HOST", help="vm1, vm2, ...")
    entering.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND ...")
    soaking = verbs.add_parser("soak", help="attach and detach on real agents, and check for leaks")
    soaking.add_argument(
        "--minutes", type=float, default=10.0, metavar="N", help="duration (default 10)"
    )
    soaking.add_argument(
        "--seed", type=int, metavar="N", help="seed of an earlier run to repeat (default: random)"
    )
    verbs.add_parser("down", help="remove everything, also after a crash")
    _add_teaching_verbs(verbs)
    return parser


def _add_teaching_verbs(verbs: argparse._SubParsersAction[StrictParser]) -> None:
    explaining = verbs.add_parser("explain", help="show each step of a packet, as it happens")
    explaining.add_argument(
        "containers", nargs="*", default=["c1", "c2"], help="from, and to (default: c1 c2)"
    )
    cutting = verbs.add_parser("cut", help="cut a host off from another one, or from all")
    cutting.add_argument("hosts", nargs="+", metavar="HOST", help="vm1, vm2, ...")
    cutting.add_argument("--one-way", action="store_true", help="only from the first to the second")
    cutting.add_argument("--only", choices=sorted(PORTS), help="only that traffic (default: all)")
    slowing = verbs.add_parser("slow", help="slow a host's line down, or let it lose packets")
    slowing.add_argument("hosts", nargs="+", metavar="HOST", help="vm1, vm2, ...")
    slowing.add_argument("--rate", metavar="RATE", help="as tc(8) writes it: 10mbit")
    slowing.add_argument("--delay", metavar="TIME", help="in each direction: 50ms; needs netem")
    slowing.add_argument("--loss", type=int, metavar="PERCENT", help="of the packets, at random")
    healing = verbs.add_parser("heal", help="end these faults")
    healing.add_argument("hosts", nargs="*", metavar="HOST", help="default: of all hosts")
