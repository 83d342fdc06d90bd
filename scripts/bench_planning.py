#!/usr/bin/env python3
"""Measure what one more endpoint costs a host's plan, beside many records and beside few.

Everything but the kernel: the record is merged, its change read, the plan followed, and the
operations derived; beside it the same by reading and planning all anew. Runs without rights:
    .venv/bin/python scripts/bench_planning.py [--records 50000] [--rounds 200]
It prints Markdown; docs/benchmarks/planning.md holds the last run.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.planned_rows import own_rows
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.planning.remote_table import RemoteTable, updated
from overlay.core.dataplane.state import SandboxState
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.membership.machine import Membership
from overlay.core.protocol.outbox import Outbox
from overlay.core.protocol.records import Scope
from overlay.core.protocol.settings import ProtocolSettings
from overlay.core.view import View
from overlay.model import Card, Endpoint, Ip, Network, Subnet, Vni, mac_for, node_id_of
from overlay.sim.environment.codec import SharingCodec
from overlay.sim.environment.notary import FakeSigner
from overlay.wire.codec.messages import MsgpackCodec

FEW, WRITERS, BATCH = 50, 13, 8
SUBNET = Subnet(Ip(bytes([10, 32, 0, 0])), 12, Ip(bytes([10, 32, 0, 1])))
KEYS = [bytes([65 + number]) * 32 for number in range(WRITERS + 2)]
IDS = [node_id_of(key) for key in KEYS]  # the first is the host that plans
ATTACHING = WRITERS + 1  # the node whose endpoints are added one by one
VNI = Vni(9)
NETWORK = Network(VNI, "blue", (SUBNET,), IDS[0])


class Host:
    """A host that holds other nodes' records, and follows them."""

    def __init__(self, records: int) -> None:
        self.store = Store(IDS[0])
        membership = Membership(
            IDS[0], 1 << 20, ProtocolSettings(), random.Random(1), Outbox(SharingCodec()),
            root_of=lambda _: 0, now=0.0,
        )  # fmt: skip
        self._writers: list[LogWriter] = []
        self._own: list[Store] = []
        for number, key in enumerate(KEYS):
            vtep = Ip(bytes([192, 168, 56, 11 + number]))
            card = Card(IDS[number], f"n{number}", key, key, vtep, 7948, 1, 1500, "test")
            self.store.accept_card(card)
            membership.add(IDS[number], 0.0, 1 << 20)
            own = Store(IDS[number])
            own.accept_card(card)
            self._own.append(own)
            self._writers.append(LogWriter(own, FakeSigner(key)))
        owners = AddressSpace(self.store, IDS[0])
        self.view = View(self.store, membership, IDS[0], owners)
        self._count = 0
        for first in range(0, records, BATCH):
            self.write(min(BATCH, records - first), 1 + first // BATCH % WRITERS)

    def write(self, count: int, writer: int) -> None:
        """Have a node write endpoints, and merge what it sent."""
        made = [_endpoint(self._count + number) for number in range(count)]
        self._count += count
        codec = MsgpackCodec()
        for segment in self._writers[writer].write(Scope(VNI), made):
            self._own[writer].accept(segment)
            self.store.accept(codec.decode_segment(segment.raw, segment.signature))

    def follow(
        self, table: RemoteTable, before: SandboxState
    ) -> tuple[RemoteTable, SandboxState, int]:
        """Plan by what has changed; return the table, the plan, and the count of operations."""
        given = self.view.collect_input(NETWORK, _VTEP, 4789, 1450, (), remotes=False)
        changes = self.view.remote_changes(NETWORK, table.position)
        own = own_rows(before)
        table, moved = updated(table, given, changes)
        after = plan_sandbox(given, table)
        assert moved is not None
        steps = diff(
            SandboxState(after.links, frozenset(own_rows(after) | moved.added)),
            SandboxState(before.links, frozenset(own | moved.removed)),
            prune=True,
        )
        return table, after, len(steps)

    def anew(self, before: SandboxState) -> tuple[SandboxState, int]:
        """Plan from all records; return the plan and the count of operations."""
        after = plan_sandbox(self.view.collect_input(NETWORK, _VTEP, 4789, 1450, ()))
        return after, len(diff(after, before, prune=True))


_VTEP = Ip(bytes([192, 168, 56, 11]))


def _endpoint(number: int) -> Endpoint:
    ip = Ip((0x0A200000 + 2 + number).to_bytes(4, "big"))
    return Endpoint(os.urandom(8), VNI, f"b{number}", mac_for(VNI, ip), (ip,))


class Follower:
    """A host with its plan, to which endpoints are added one by one."""

    def __init__(self, records: int) -> None:
        self._host = Host(records)
        given = self._host.view.collect_input(NETWORK, _VTEP, 4789, 1450, ())
        self._table, _ = updated(None, given, self._host.view.remote_changes(NETWORK))
        self._plan = plan_sandbox(given, self._table)
        self._full = plan_sandbox(given)
        assert self._plan == self._full

    def follow(self) -> None:
        """Add one, and plan by what has changed."""
        self._host.write(1, ATTACHING)
        self._table, self._plan, count = self._host.follow(self._table, self._plan)
        assert count == 3

    def catch_up(self) -> None:
        """Plan anew; the result is the same."""
        self._full, _ = self._host.anew(self._full)
        assert self._plan == self._full

    def anew(self) -> None:
        """Add one, and plan from all records."""
        self._host.write(1, ATTACHING)
        self._full, count = self._host.anew(self._full)
        assert count == 3


def _medians(rounds: int, steps: Sequence[Callable[[], None]]) -> list[float]:
    """Return the milliseconds of processor time of steps that take turns."""
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, times in zip(steps, taken, strict=True):
            started = time.thread_time()
            step()
            times.append(1000 * (time.thread_time() - started))
    return [statistics.median(times) for times in taken]


def main() -> int:
    """Print the results as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    hosts = [Follower(FEW), Follower(arguments.records)]
    gc.collect()
    gc.freeze()
    followed = _medians(arguments.rounds, [each.follow for each in hosts])
    for each in hosts:
        each.catch_up()
    anew = _medians(max(3, arguments.rounds // 40), [each.anew for each in hosts])
    print(f"| one more endpoint, ms | beside {FEW} | beside {arguments.records:,} | ratio |")
    print("|---|---|---|---|")
    for name, (few, many) in (("followed", followed), ("read and planned anew", anew)):
        print(f"| {name} | {few:.3f} | {many:.3f} | {many / few:.2f} |")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"
    print(f"\n{machine}, Python {platform.python_version()}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
