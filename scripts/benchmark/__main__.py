"""Run the whole benchmark and write Markdown, JSON and SVG into docs/benchmarks/."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from overlay.lab import lab
from scripts import bench_attach
from scripts.benchmark import contenders, control, dataplane, program, report, scale, underlays

ATTACH_RECORDS = 50_000
ATTACH_S = 90.0
OUTPUT = Path(__file__).parents[2] / "docs/benchmarks"


def tell(text: str) -> None:
    """Print a progress message."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print the report, write the files."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds of all contenders (default 7)"
    )
    parser.add_argument(
        "--seconds", type=int, default=3, help="duration of each stream (default 3)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder to write into")
    parser.add_argument(
        "--only",
        choices=("data", "beside", "native", "control", "attach", "program"),
        help="measure only this part; beside: only the host's own traffic; native: the native "
        "path; attach: one attach beside 50,000 records",
    )
    parser.add_argument(
        "--underlay",
        choices=underlays.KINDS,
        default=underlays.DEFAULT,
        help="of the part native: with an MTU of 9000 (jumbo), or with interfaces that neither "
        "segment nor merge packets (segmented), or merge them only (segmented-gro)",
    )
    arguments = parser.parse_args()
    result: dict[str, object] = {"machine": report.machine()}
    if arguments.only == "beside":
        result["data"] = _beside(arguments.rounds, arguments.seconds)
    if arguments.only in (None, "data", "control"):
        try:
            hosts = lab.make(7)
            lab.join(hosts[:3])
            lab.populate(hosts[:3])
            if arguments.only != "control":
                found = contenders.all_of(hosts, tell)
                result["data"] = dataplane.measure(found, arguments.rounds, arguments.seconds, tell)
            if arguments.only != "data":
                result["control"] = control.measure(hosts[:6], tell)
            if arguments.only != "control":
                result["scale"] = scale.measure(hosts[:3], found[3], arguments.seconds, tell)
        finally:
            lab.down()
    if arguments.only in (None, "native"):
        result["underlay"] = arguments.underlay
        result["native"] = _native(arguments.rounds, arguments.seconds, arguments.underlay)
    if arguments.only in (None, "attach"):
        result["attach"] = _attach()
    if arguments.only in (None, "program"):
        result["program"] = program.measure(tell)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report.markdown(result)
    (arguments.output / "bench.md").write_text(text)
    if "data" in result and arguments.only != "beside":
        (arguments.output / "bench.svg").write_text(report.picture(result))
    print(text)
    return 0


def _beside(rounds: int, seconds: int) -> dataplane.Samples:
    """Measure two hosts with overlayd and two without it."""
    try:
        hosts = lab.make(4)
        lab.join(hosts[:2])
        lab.populate(hosts[:2])
        found = [contenders.bare(hosts[2:]), contenders.beside(hosts[:2])]
        return dataplane.measure(found, rounds, seconds, tell)
    finally:
        lab.down()


def _native(rounds: int, seconds: int, underlay: str) -> dataplane.Samples:
    """Measure two hosts with the native path, two without it, two of Docker, and two bare ones."""
    try:
        hosts = lab.make(8)
        underlays.prepare(hosts, underlay)
        contenders.switch_native_off(hosts[:2])
        lab.join(hosts[:4])
        lab.populate(hosts[:4])
        found = contenders.with_native(hosts, underlay, tell)
        return dataplane.measure(found, rounds, seconds, tell)
    finally:
        lab.down()


def _attach() -> list[str]:
    """Compare one attach beside many records with one beside few."""
    tell(f"one attach beside {ATTACH_RECORDS:,} records")
    try:
        return bench_attach.measure(ATTACH_RECORDS, ATTACH_S)
    finally:
        lab.down()


if __name__ == "__main__":
    raise SystemExit(main())
