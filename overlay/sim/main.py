"""`overlayd sim`: run or measure a simulated cluster.

Owns: the command line, the output, the exit code. Results (tables) go to stdout, progress and story
to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from overlay.errors import UsageError
from overlay.sim.outcome import Outcome
from overlay.sim.progress import Progress
from overlay.sim.report.plot import ConvergencePlot, render_svg
from overlay.sim.report.report import PARTS, report
from overlay.sim.run import Run
from overlay.sim.scenario import (
    Scenario,
    drawn,
    parse_duration_s,
    parse_rate_per_s,
    parse_share,
)
from overlay.sim.soak import soak
from overlay.strict_arguments import StrictParser

_EPILOG: Final = """\
The same options give the same run, event for event. A failed run prints the command that repeats
it. Exit code 0: all checks passed; 1: a check failed; 2: usage error.
"""
_HELP: Final[dict[str, str]] = {
    "nodes": "hosts in the cluster",
    "seed": "seed of all randomness",
    "loss": "share of datagrams lost in the storm",
    "latency": "one-way delay of every datagram",
    "jitter": "maximum random addition to the delay; reorders datagrams",
    "duplicate": "share of datagrams that arrive twice",
    "corrupt": "share of datagrams that arrive corrupted",
    "straggle": "share of datagrams that arrive up to half a second late",
    "partitions": "cuts between two sides, some of them one-way",
    "crashes": "agents killed, hosts without power, disks restored from an old backup",
    "clogs": "paths that hold back all datagrams, then deliver them at once",
    "stalls": "agents suspended for seconds",
    "moves": "hosts whose underlay address changes",
    "leaves": "hosts that leave permanently",
    "newcomers": "hosts that join during the storm",
    "rotations": "cluster keys created in the storm, some by two hosts at once",
    "holders": "hosts that hold the authority from the start",
    "key_interval": "time between automatic key rotations in the storm; 0: none",
    "absences": "hosts asleep, off or cut off for longer than a rotation takes",
    "tampers": "changes to a sandbox by another program",
    "lies": "writes by a member under another's control: its gateways, too many names or networks",
    "declarations": "changes of declared objects in the storm, each by any host",
    "churn": "attaches and detaches per second, in the whole cluster",
    "networks": "overlay networks",
    "hosts_per_network": "hosts on each network",
    "endpoints": "containers per host and network at the start",
    "duration": "length of the storm; the calm after it lasts as long as needed, up to a limit",
    "outage": "at the end kill a minority of the agents and attach on every other host",
    "grow": "let the hosts join one by one instead of starting as a formed cluster",
}


def command_parser() -> StrictParser:
    """Return the parser of the simulator's options."""
    parser = StrictParser(
        prog="overlayd sim",
        description="Simulate a cluster: the real core, wire format and planner over a simulated "
        "kernel and an unreliable network. After a storm and a calm, all hosts must be equal.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for item in fields(Scenario):
        option = f"--{item.name.replace('_', '-')}"
        if item.type == "bool":
            parser.add_argument(option, action="store_true", help=_HELP[item.name])
            continue
        parser.add_argument(
            option,
            type=_reader(item.name, str(item.type)),
            default=item.default,
            metavar="N",
            help=f"{_HELP[item.name]} (default {item.default})",
        )
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the convergence curve")
    parser.add_argument("--story", action="store_true", help="print every fault as it happens")
    parser.add_argument(
        "--soak",
        type=int,
        metavar="N",
        help="run N seeds from --seed on, each a scenario of its own",
    )
    parser.add_argument(
        "--drawn", action="store_true", help="run the scenario that is drawn from the seed alone"
    )
    parser.add_argument(
        "--report",
        nargs="*",
        choices=tuple(PARTS),
        metavar="PART",
        help=f"measure, and print the table of goals: all parts, or some of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="with --report: a tenth of the nodes and time"
    )
    return parser


def _reader(name: str, kind: str) -> Callable[[str], Any]:
    if name in {"latency", "jitter", "duration", "key_interval"}:
        return parse_duration_s
    if name == "churn":
        return parse_rate_per_s
    return parse_share if kind == "float" else _count


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def main(argv: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    arguments = command_parser().parse_args(argv)
    if arguments.nodes < 1:
        raise UsageError("--nodes must be at least 1", hint="overlayd sim --help")
    if arguments.report is not None:
        print(report(arguments.report, quick=arguments.quick, tell=_print_progress))
        return 0
    if arguments.soak is not None:
        return soak(range(arguments.seed, arguments.seed + arguments.soak), _print_progress)
    scenario = Scenario(**{item.name: getattr(arguments, item.name) for item in fields(Scenario)})
    if arguments.drawn:
        scenario = drawn(scenario.seed)
    return _run(scenario, arguments.svg, story=arguments.story)


def _run(scenario: Scenario, picture: Path | None, *, story: bool) -> int:
    run = Run(scenario)
    progress = Progress(run, sys.stderr, story=story)
    outcome = run.to_end(progress.step)
    progress.end()
    if picture is not None:
        picture.write_text(render_svg(_picture(scenario, outcome)), encoding="utf-8")
        _print_progress(f"wrote {picture}")
    print(outcome.table())
    if outcome.failures:
        print(outcome.failed_text(), file=sys.stderr)
        return 1
    return 0


def _picture(scenario: Scenario, outcome: Outcome) -> ConvergencePlot:
    return ConvergencePlot(
        title=f"Share of required records held: {scenario.nodes} nodes, seed {scenario.seed}",
        points=outcome.curve,
        storm_end_s=outcome.calm_from_s,
        faults_s=outcome.faults_s,
    )


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
