"""Rows that a host can plan, diff and program per second, from records to the kernel."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable

from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.planning.inputs import PlanInput, RemoteEndpoint
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.kernel import netns
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import (
    Endpoint,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    parse_ip,
)

ENDPOINTS = 33_334  # three rows each
HOSTS = 100
ROUNDS = 5
NAME = f"ovb{os.getpid()}"
VNI = Vni(0x812345)


def measure(tell: Callable[[str], None]) -> dict[str, object]:
    """Program 100,000 rows into an empty sandbox, then read and compare them, several times."""
    tell("100,000 rows from records to the kernel")
    subnet = Subnet(parse_ip("10.32.0.0"), 12, parse_ip("10.32.0.1"))
    network = Network(VNI, "bench", (subnet,), NodeId(bytes(16)))
    given = PlanInput(
        network=network,
        port=4799,
        local=parse_ip("127.0.0.1"),
        mtu=1450,
        remotes=tuple(_remote(number) for number in range(ENDPOINTS)),
        flood=tuple(_vtep(number) for number in range(HOSTS)),
    )
    gc.collect()
    gc.freeze()
    gc.disable()
    per_s, idle_s, parts = [], [], []
    for _ in range(ROUNDS):
        sandbox = Sandbox.open(NAME, create=True)
        try:
            begun = time.perf_counter()
            desired = plan_sandbox(given)
            planned = time.perf_counter()
            operations = diff(desired, sandbox.read(), prune=True)
            subtracted = time.perf_counter()
            assert sandbox.apply(operations) == []
            ended = time.perf_counter()
            per_s.append(len(desired.rows) / (ended - begun))
            parts.append([planned - begun, subtracted - planned, ended - subtracted])
            again = time.perf_counter()
            assert diff(plan_sandbox(given), sandbox.read(), prune=True) == []
            idle_s.append(time.perf_counter() - again)
        finally:
            sandbox.destroy()
    gc.enable()
    assert NAME not in netns.names()
    return {"rows": len(desired.rows), "per_s": per_s, "parts_s": parts, "nothing_to_do_s": idle_s}


def _vtep(number: int) -> Ip:
    return Ip((0xC0A80000 + number % HOSTS + 2).to_bytes(4, "big"))


def _remote(number: int) -> RemoteEndpoint:
    ip = Ip((0x0A200000 + 16 + number).to_bytes(4, "big"))
    origin = NodeId((number % HOSTS).to_bytes(16, "big"))
    endpoint = Endpoint(number.to_bytes(8, "big"), VNI, f"c{number}", mac_for(VNI, ip), (ip,))
    return RemoteEndpoint(origin, _vtep(number), endpoint)
