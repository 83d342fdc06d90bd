#!/usr/bin/env python3
"""Measure encrypted networks: throughput beside Docker's `--opt encrypted`, and many peers.

Two namespaces on one machine, with a VXLAN device each, take turns: frames in clear, through
WireGuard as overlayd makes it, and by IPsec as Docker sets it up (ESP in transport mode,
rfc4106(gcm(aes)) with a key of 128 bits), where the kernel has that. Then one device gets many
peers, as overlayd configures them: the time, and the memory that this takes. Run as root, in a
network namespace of its own (`unshare --net`), with iproute2:
    .venv/bin/python scripts/bench_encryption.py [--rounds 3] [--seconds 3] [--peers 1000]
It prints Markdown; docs/benchmarks/encryption.md holds the last runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overlay.core.encryption.device import TunnelPeer, TunnelState
from overlay.core.encryption.inner_address import inner_address, inner_prefix
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.wireguard import backend, link, tunnel
from overlay.model import Ip, NodeId, ip_text, parse_ip
from overlay.wire.identity.key_pair import KeyPair

PREFIX = inner_prefix(bytes(4))
ENDS = ("left", "right")
UNDERLAY = [parse_ip("192.0.2.1"), parse_ip("192.0.2.2")]
INNER = [inner_address(PREFIX, NodeId(bytes([n]) * 16)) for n in (1, 2)]
PRIVATE = [bytes([0x08, *[n] * 30, 0x40]) for n in (1, 2)]
KEYS = [KeyPair(private) for private in PRIVATE]
VNI = {"clear": 101, "esp": 102, "wireguard": 103}
PORT, ESP_PORT, STREAM_PORT = 4789, 4790, 5001
ESP_KEY = "0x" + "07" * 20  # 128 bits and the salt
LARGE = bytes(1 << 16)


def run(line: str) -> None:
    """Run a shell line that must succeed."""
    subprocess.run(["sh", "-c", line], check=True, stdin=subprocess.DEVNULL)


@contextmanager
def hosts() -> Iterator[None]:
    """Make two connected namespaces; the caller's is thrown away with all that it has."""
    for name in ENDS:
        run(f"ip netns add {name}; ip -n {name} link set lo up")
    run("ip link add eth1 netns left type veth peer name eth1 netns right")
    for name, ip in zip(ENDS, UNDERLAY, strict=True):
        run(f"ip -n {name} addr add {ip_text(ip)}/24 dev eth1; ip -n {name} link set eth1 up")
    try:
        yield
    finally:
        for name in ENDS:
            with inside(name):
                link.remove_devices()
            run(f"ip netns del {name}")


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Enter a namespace during a block."""
    descriptor = netns.open_fd(netns.path_of(name))
    try:
        with netns.inside(descriptor):
            yield
    finally:
        os.close(descriptor)


def make_vxlan(kind: str, mtu: int, ends: list[Ip], port: int) -> None:
    """Make a pair of VXLAN devices with addresses, from end to end."""
    for n, name in enumerate(ENDS):
        run(
            f"ip -n {name} link add {kind} mtu {mtu} type vxlan id {VNI[kind]} dstport {port}"
            f" local {ip_text(ends[n])} remote {ip_text(ends[1 - n])} nolearning;"
            f" ip -n {name} addr add 10.{VNI[kind]}.0.{n + 1}/24 dev {kind};"
            f" ip -n {name} link set {kind} up"
        )


def make_wireguard() -> str:
    """Make the tunnel as overlayd does; return what carries it."""
    found = backend.find_support()
    if found.backend is None:
        raise SystemExit(f"no WireGuard: {found.why}. {found.hint}")
    for n, name in enumerate(ENDS):
        peer = TunnelPeer(KEYS[1 - n].public, INNER[1 - n], UNDERLAY[1 - n], 7949)
        # Names of their own, as both processes have their socket in one folder.
        state = TunnelState(PRIVATE[n], 7949, PREFIX, INNER[n], 1440, frozenset({peer}), slot=n)
        with inside(name):
            link.ensure_fence(PREFIX)
            tunnel.establish(state, None, found.backend)
    return found.backend.value


def has_esp() -> bool:
    """Set up IPsec between the namespaces; return whether the kernel can."""
    left, right = map(ip_text, UNDERLAY)
    try:
        for name in ENDS:
            own, other = (left, right) if name == "left" else (right, left)
            for source, target, spi in ((left, right, 1), (right, left, 2)):
                run(
                    f"ip -n {name} xfrm state add src {source} dst {target} proto esp spi {spi}"
                    f" mode transport aead 'rfc4106(gcm(aes))' {ESP_KEY} 64 2>/dev/null"
                )
            run(
                f"ip -n {name} xfrm policy add src {own} dst {other} proto udp dport {ESP_PORT}"
                f" dir out tmpl src {own} dst {other} proto esp mode transport 2>/dev/null"
            )
    except subprocess.CalledProcessError:
        return False
    return True


def throughput(kind: str, seconds: float) -> float:
    """Return the Mbit/s of one TCP stream from left to right."""
    target = (f"10.{VNI[kind]}.0.2", STREAM_PORT)
    with inside("right"):
        server = socket.create_server(target)
    received = [0, 0.0]

    def receive() -> None:
        opened, _ = server.accept()
        buffer, began = bytearray(1 << 18), time.monotonic()
        while count := opened.recv_into(buffer):
            received[0] += count
        received[1] = time.monotonic() - began

    receiver = threading.Thread(target=receive)
    receiver.start()
    with inside("left"):
        sender = socket.create_connection(target, timeout=30)
    until = time.monotonic() + seconds
    with sender:
        while time.monotonic() < until:
            sender.sendall(LARGE)
    receiver.join()
    server.close()
    return received[0] * 8 / received[1] / 1e6


def memory_kb() -> tuple[int, int]:
    """Return what wireguard-go has resident, and the kernel's unreclaimable slabs, in kB."""
    resident = 0
    for path in Path("/proc").glob("[0-9]*/comm"):
        if path.read_text().strip() == "wireguard-go":
            status = (path.parent / "status").read_text()
            if "VmRSS:" in status:  # not of one that has just ended
                resident += int(status.split("VmRSS:")[1].split()[0])
    slabs = int(Path("/proc/meminfo").read_text().split("SUnreclaim:")[1].split()[0])
    return resident, slabs


def measure_peers(count: int) -> Iterator[str]:
    """Yield rows on the first configuration of many peers, a check, and the memory."""
    peers = frozenset(
        TunnelPeer(KeyPair(os.urandom(32)).public, inner_address(PREFIX, node), UNDERLAY[1], 7949)
        for node in (NodeId(n.to_bytes(8, "big") + bytes(8)) for n in range(1, count + 1))
    )
    found = backend.find_support().backend
    assert found is not None
    with inside("left"):
        link.remove_devices()
        before = memory_kb()
        state = TunnelState(PRIVATE[0], 7949, PREFIX, INNER[0], 1440, peers)
        began = time.perf_counter()
        tunnel.establish(state, None, found)
        made_s = time.perf_counter() - began
        began = time.perf_counter()
        tunnel.establish(state, state, found)
        checked_s = time.perf_counter() - began
        after = memory_kb()
    grown = [new - old for new, old in zip(after, before, strict=True)]
    yield f"| {count:,} peers: first configuration, with a greeting to each | {made_s:.2f} s |"
    yield f"| {count:,} peers: a check | {checked_s:.2f} s |"
    if found is backend.Backend.PROCESS:
        yield f"| {count:,} peers: resident memory of wireguard-go | {after[0] / 1024:.0f} MB |"
    else:
        yield f"| {count:,} peers: unreclaimable slabs of the kernel | {grown[1] / 1024:.1f} MB |"


def main() -> int:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--peers", type=int, default=1000)
    args = parser.parse_args()
    with hosts():
        carrier = make_wireguard()
        make_vxlan("clear", 1450, UNDERLAY, PORT)
        make_vxlan("wireguard", 1370, INNER, PORT)
        kinds = ["clear", "wireguard"]
        if has_esp():
            make_vxlan("esp", 1424, UNDERLAY, ESP_PORT)
            kinds.append("esp")
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind in kinds:
                rates[kind].append(throughput(kind, args.seconds))
        medians = {kind: statistics.median(found) for kind, found in rates.items()}
        names = {"clear": "VXLAN in clear", "wireguard": f"VXLAN in WireGuard ({carrier})",
                 "esp": "VXLAN in ESP, as Docker's"}  # fmt: skip
        load = Path("/proc/loadavg").read_text().split()[0]
        print(f"Linux {platform.release()}, {os.cpu_count()} cores, load {load}\n")
        print("| TCP, one stream | Mbit/s, by turns | of clear |\n|---|---|---|")
        for kind, found in rates.items():
            shown = ", ".join(f"{rate:,.0f}" for rate in found)
            print(f"| {names[kind]} | {shown} | {medians[kind] / medians['clear']:.2f} |")
        if "esp" in kinds:
            print(f"\nWireGuard / ESP: {medians['wireguard'] / medians['esp']:.2f}")
        print("\n| what | measured |\n|---|---|")
        for row in measure_peers(args.peers):
            print(row)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OverlayError as error:
        sys.exit(str(error))
