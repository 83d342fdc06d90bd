#!/usr/bin/env python3
"""Throw millions of inputs at what reads the network, guided by coverage (atheris, libFuzzer).

    scripts/fuzz.py [--runs 1000000] [--seed N] [TARGET ...]     (make fuzz installs atheris)

Stops at the first defect: an exception that is no named drop, or a drop without a name. libFuzzer
then writes the input to build/fuzz/; give that file to --replay to see it again. At the end each
target tells how many inputs it took, what they were dropped as, and what memory it gained.
"""

from __future__ import annotations

import argparse
import collections
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
KEPT = ROOT / "build/fuzz"
NAMES = (
    "wire",
    "insider",
    "newcomer",
    "frame",
    "door",
    "member",
    "decoders",
    "token",
)  # fmt: skip - of tests/fuzz/targets.py
TOLD_EVERY = 1_000_000
WARM_COUNT = 20_000  # inputs after which memory is measured for the first time


def resident_kib() -> int:
    """Return this process's resident memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def seeds(name: str) -> list[bytes]:
    """Return sound inputs of a target: the golden vectors."""
    vectors = json.loads((ROOT / "docs/vectors/wire.json").read_text(encoding="utf-8"))
    if name == "token":
        return [vectors["token"]["text"].encode()]
    if name == "door":
        return [bytes.fromhex(each) for each in vectors["admission"].values()]
    if name in ("wire", "insider"):
        return [bytes.fromhex(each) for each in vectors["session"]["datagrams"].values()]
    if name in ("newcomer", "frame"):
        return [bytes.fromhex(vectors["session"][each]) for each in ("statement", "frame")]
    return [bytes.fromhex(each) for each in vectors["messages"].values()]


def fuzz(name: str, runs: int, seed: int) -> None:
    """Run one target in this process; libFuzzer ends it."""
    import atheris  # noqa: PLC0415 - only this process needs it

    with atheris.instrument_imports(include=["overlay", "msgpack"]):
        from tests.fuzz import targets  # noqa: PLC0415 - instrumented
    target = targets.make(name)
    counts: collections.Counter[str] = collections.Counter()
    started = time.monotonic()
    memory = 0
    taken = 0

    def one(data: bytes) -> None:
        nonlocal memory, taken
        taken += 1
        reason = target(data)
        assert reason or reason == "", "a drop without a name"
        counts[reason] += 1
        if taken == WARM_COUNT:
            memory = resident_kib()
        if taken % TOLD_EVERY == 0 or taken == runs:
            tell()  # libFuzzer ends the process without a word to Python

    def tell() -> None:
        gc.collect()
        took_s = time.monotonic() - started
        print(
            json.dumps({
                "target": name, "inputs": taken, "seconds": round(took_s),
                "gained_kib": resident_kib() - memory, "drops": dict(counts.most_common(40)),
            }), flush=True,
        )  # fmt: skip

    KEPT.mkdir(parents=True, exist_ok=True)
    corpus = KEPT / f"corpus-{name}"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"vector{number}").write_bytes(data)
    options = [f"-runs={runs}", f"-seed={seed}", "-max_len=1300", "-rss_limit_mb=2048",
               f"-artifact_prefix={KEPT}/{name}-", "-verbosity=0", str(corpus)]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def replay(name: str, path: Path) -> None:
    """Give one kept input to a target, uninstrumented."""
    from tests.fuzz import targets  # noqa: PLC0415 - uninstrumented here

    print(repr(targets.make(name)(path.read_bytes())))


def main() -> int:
    """Fuzz each target in a process of its own."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("scripts/fuzz.py", description=__doc__, formatter_class=shape)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=1, help="of libFuzzer (default 1)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give this input to TARGET")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    wanted = arguments.targets or list(NAMES)
    for name in wanted:
        if name not in NAMES:
            parser.error(f"there is no target {name!r}; there are {', '.join(NAMES)}")
        if arguments.replay:
            replay(name, arguments.replay)
        elif arguments.here:
            fuzz(name, arguments.runs, arguments.seed)
        else:
            command = [sys.executable, __file__, name, "--here"]
            command += [f"--runs={arguments.runs}", f"--seed={arguments.seed}"]
            done = subprocess.run(command, check=False)
            if done.returncode:
                print(f"fuzz: {name} has a defect; the input is in {KEPT}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
