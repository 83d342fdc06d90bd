#!/usr/bin/env python3
"""Show what holds the memory of an agent's records: bytes by holder and kind of object.

Members' logs are written, sent and received as in a cluster, and a pass plans by them; then each
object is counted once, with the first holder that leads to it. No root, no lab, 20 s:
    .venv/bin/python scripts/bench_memory.py [--records 50000]
It prints Markdown; docs/benchmarks/attach.md holds the last run.
"""

from __future__ import annotations

import argparse
import collections
import gc
import os
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from overlay.agent.main import return_large_blocks
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planned_rows import SeenRows
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import RemoteTable, table_of
from overlay.core.dataplane.planning.steps import steps
from overlay.core.dataplane.state import RemoteRow, SandboxState
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.records import Scope
from overlay.model import Card, Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, node_id_of
from overlay.sim.environment.notary import FakeSigner
from overlay.wire.codec.messages import MsgpackCodec

MEMBERS = 13
BATCH = 8  # endpoints of one write
VNI = Vni(0x812345)
VTEP = Ip(bytes([192, 168, 56, 12]))
CODES = (type(sys), type, type(lambda: None), type(BATCH.bit_length))
"""Types of what the program consists of; what these lead to is not counted."""


def main() -> int:
    """Print the holders as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=50_000)
    records: int = parser.parse_args().records
    return_large_blocks()
    with ProcessPoolExecutor(1, get_context("spawn")) as senders:  # theirs is not counted
        senders.submit(card_of, 0).result()
        before = resident_mib()
        store, table = received(records, senders)
    planned = resident_mib()
    pass_over(table)
    passed = resident_mib()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| holder, for each of {records:,} records | bytes | of these |\n|---|---|---|")
    total = 0
    for name, kinds in holders(store, table):
        size = sum(kinds.values())
        total += size
        shown = [f"{kind} {round(count / records)}" for kind, count in kinds.most_common(6)]
        print(f"| {name} | {size / records:.0f} | {', '.join(shown)} |")
    print(f"| all | {total / records:.0f} | |")
    print(f"\nFor 10,000 records: {total / records * 10_000 / 2**20:.1f} MiB in objects; resident:")
    for when, found in (("the table", planned), ("a pass", passed), ("its peak", peak)):
        print(f"with {when} {(found - before) / records * 10_000:.1f} MiB")
    return 0


def received(records: int, senders: Executor) -> tuple[Store, RemoteTable]:
    """Return the records as another host holds them, and its table of rows."""
    codec, store = MsgpackCodec(), Store(NodeId(b"r" * 16))
    for member in range(MEMBERS):
        store.accept_card(card_of(member))
        first, end = (records * each // MEMBERS for each in (member, member + 1))
        for raw in senders.submit(sent, member, range(first, end)).result():
            store.accept(codec.decode_segment(raw, os.urandom(64)))
    network = Network(
        VNI, "blue", (Subnet(Ip(bytes([10, 32, 0, 0])), 12, Ip(bytes([10, 32, 0, 1]))),),
        card_of(0).node_id,
    )  # fmt: skip
    found = store.values(Scope(VNI), "endpoint")
    remotes = [RemoteEndpoint(at, VTEP, each) for at, each in found if isinstance(each, Endpoint)]
    given = PlanInput(
        network, 4789, Ip(bytes([192, 168, 56, 11])), 1450, remotes=tuple(remotes), native=True
    )
    return store, table_of(given)


def card_of(member: int) -> Card:
    """Return a member's card."""
    key = bytes([member]) * 32
    return Card(node_id_of(key), f"m{member}", key, key, VTEP, 7948, 1, 1500, "bench")


def sent(member: int, numbers: range) -> list[bytes]:
    """Return the segments of a member's log, as they are sent."""
    card = card_of(member)
    found = []
    store = Store(card.node_id)
    store.accept_card(card)
    writer = LogWriter(store, FakeSigner(card.sign_key))
    for first in range(numbers.start, numbers.stop, BATCH):
        batch = range(first, min(first + BATCH, numbers.stop))
        for segment in writer.write(Scope(VNI), [*map(endpoint, batch)]):
            store.accept(segment)
            found.append(segment.raw)
    return found


def endpoint(number: int) -> Endpoint:
    """Return one of the endpoints."""
    ip = Ip((0x0A210000 + number).to_bytes(4, "big"))
    return Endpoint(os.urandom(8), VNI, f"record{number}", mac_for(VNI, ip), (ip,))


def pass_over(table: RemoteTable) -> None:
    """Make the steps of the first pass after a restart: only the agent's own maps are empty."""
    network = Network(VNI, "blue", table.frame.subnets, card_of(0).node_id)
    given = PlanInput(network, 4789, table.frame.local, 1450, native=True)
    desired = plan_sandbox(given, table, fast_path=True, native=True)
    seen = SeenRows(table.rows)
    seen.update(row for row in desired.rows if not isinstance(row, RemoteRow))
    for one in steps(SandboxState(desired.links, seen.rows()), desired):
        diff(one.after, one.before, prune=True)


def holders(store: Store, table: RemoteTable) -> Iterator[tuple[str, collections.Counter[str]]]:
    """Yield each holder with the bytes of the objects that no earlier one leads to, by kind."""
    seen: set[int] = set()
    logs = [store.log(origin, Scope(VNI)) for origin in store.origins(Scope(VNI))]
    held = [log for log in logs if log is not None]
    raw = [each for log in held for segment in log.segments for each in
           (segment.raw, segment.signature)]  # fmt: skip
    for name, root in (
        ("segments, as they were sent, and signatures", raw),
        ("their entries: endpoints as values", [log.segments for log in held]),
        ("live entries by key", [log.live for log in held]),
        ("names, journal, sums", store),
        ("table of rows", table),
    ):
        found: collections.Counter[str] = collections.Counter()
        stack: list[object] = [root] if root is store or root is table else gc.get_referents(root)
        while stack:
            each = stack.pop()
            if id(each) in seen or isinstance(each, CODES):
                continue
            seen.add(id(each))
            found[type(each).__name__] += -(-sys.getsizeof(each) // 16) * 16  # as it is allocated
            stack += gc.get_referents(each)
        yield name, found


def resident_mib() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
