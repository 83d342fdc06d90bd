#!/usr/bin/env python3
"""Measure what overlayd's parts cost the host's own traffic, one by one.

Two namespaces with a cable are hosts. Between measurements their rules and programs are exchanged:
those of a host that exposes a network and publishes a port, parts of them, and what was tried to
exempt other traffic from tracking (ADR 0019). A flood ping and UDP packets of 64 bytes run with
real-time priority (chrt(1)); each pair of steps follows a measurement with nothing, and the ratios
to that count. Run as root, where network namespaces may be made (`unshare --net --mount`), with
iproute2, iperf3 and nft(8), on Linux 6.6 or later:
    .venv/bin/python scripts/bench_host_traffic.py [--rounds 10] [--seconds 1]
It prints Markdown; docs/benchmarks/README.md holds the last run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from overlay.core.dataplane.host_rules import ExposedLink, HostState, PortForward
from overlay.core.dataplane.underlay_filter import FilterState
from overlay.kernel import netns
from overlay.kernel.bpf import numbers, syscall
from overlay.kernel.bpf.assembler import (
    BYTE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    WORD,
    Assembler,
)
from overlay.kernel.native import receive_program as native
from overlay.kernel.nft import host_table, underlay_filter
from overlay.model import Ip, NodeId, Vni, parse_ip

NODE = NodeId(bytes(range(16)))
ADDRESSES = {"h1": "192.0.2.1", "h2": "192.0.2.2"}
CABLE, PORT, IPERF_PORT = "cable", 8080, "5999"
FIRST = ("chrt", "-f", "1")
PINGS = 12_000
BLOCK, BLOCK_MASK = 0x4000, 0xC000  # ports to masquerade with: 16384 to 32767
TABLE_SIZE = 65_536 // 8  # bytes of the bits of one protocol
UNTRACKED = 0x6F764E54  # priority of a packet that nobody translates
FILTER = f"inet {underlay_filter.table_name(NODE)}"
TRANSLATION = f"inet {host_table.table_name(NODE)}"

CHAINS = """
table inet empty {
  chain arriving { type filter hook prerouting priority -300; }
  chain sent { type filter hook output priority -300; }
}
"""
HOOKS = """
table inet hooks {
  chain untracked { type filter hook prerouting priority -300; notrack accept; }
  chain unsent { type filter hook output priority -300; notrack accept; }
  chain arriving { type nat hook prerouting priority -100; ip daddr 198.51.100.1 accept; }
  chain sent { type nat hook output priority -100; ip daddr 198.51.100.1 accept; }
  chain leaving { type nat hook postrouting priority 100; ip daddr 198.51.100.1 accept; }
  chain passing { type filter hook forward priority 0; ct state established accept; }
}
"""
WITHOUT_GUARD = f"""
flush chain {TRANSLATION} guard
delete chain {TRANSLATION} guard
"""
IN_ALL = f"insert rule {FILTER} arriving notrack accept\n"
OUT_ALL = f"insert rule {FILTER} sent notrack accept\n"
PRIORITY = f"{UNTRACKED >> 16:x}:{UNTRACKED & 0xFFFF:x}"  # as nft(8) writes it
IN_DECIDED = f"insert rule {FILTER} arriving meta priority {PRIORITY} notrack accept\n"
ECHO = "icmp type { echo-request, echo-reply }"
OUT_BY_PROTOCOL = "".join(
    f"insert rule {FILTER} sent oif {CABLE} {match} notrack accept\n"
    for match in (ECHO, "meta l4proto tcp", "meta l4proto udp")
)
OUT_BY_PORT = "".join(
    f"insert rule {FILTER} sent oif {CABLE} {match} & {BLOCK_MASK} != {BLOCK} notrack accept\n"
    for match in (f"{ECHO} icmp id", "meta l4proto { tcp, udp } th sport")
)


class Step(NamedTuple):
    """A host's configuration: overlayd's programs and tables, a deciding program, further rules."""

    name: str
    receives: bool = False
    decides: bool = False
    has_filter: bool = False
    translates: bool = False
    rules: str = ""


STEPS = (
    Step("nothing, again"),
    Step("the native path's program", receives=True),
    Step("the same, and the deciding program", receives=True, decides=True),
    Step("two empty chains, before routing and on the way out", rules=CHAINS),
    Step("the native path's program and the filter", receives=True, has_filter=True),
    Step("hooks of tracking and translation, all exempt by one rule", rules=HOOKS),
    Step("all of overlayd, all exempt by one rule", receives=True, has_filter=True,
         translates=True, rules=WITHOUT_GUARD + IN_ALL + OUT_ALL),
    Step("all of overlayd, exempt by the program, and out by protocol", receives=True,
         decides=True, has_filter=True, translates=True,
         rules=WITHOUT_GUARD + IN_DECIDED + OUT_BY_PROTOCOL),
    Step("all of overlayd, exempt by the program, and out by source port", receives=True,
         decides=True, has_filter=True, translates=True,
         rules=WITHOUT_GUARD + IN_DECIDED + OUT_BY_PORT),
    Step("all of overlayd, all tracked, without the guard of loopback addresses", receives=True,
         has_filter=True, translates=True, rules=WITHOUT_GUARD),
    Step("all of overlayd, all tracked", receives=True, has_filter=True, translates=True),
)  # fmt: skip
NOTHING = Step("nothing")


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Enter a namespace during a block."""
    descriptor = netns.open_fd(netns.path_of(name))
    try:
        with netns.inside(descriptor):
            yield
    finally:
        os.close(descriptor)


def run(*words: str, stdin: str | None = None) -> str:
    """Run a command that must succeed; return its output."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return done.stdout


def within(name: str, *words: str, stdin: str | None = None) -> str:
    """Run a command in a namespace."""
    return run("ip", "netns", "exec", name, *words, stdin=stdin)


def make_hosts() -> None:
    """Make both hosts and their cable."""
    for name in ADDRESSES:
        run("ip", "netns", "add", name)
    run("ip", "link", "add", CABLE, "netns", "h1", "type", "veth", "peer", CABLE, "netns", "h2")
    for name, address in ADDRESSES.items():
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", CABLE)
        for interface in ("lo", CABLE):
            run("ip", "-n", name, "link", "set", interface, "up")


def equip(step: Step) -> None:
    """Give both hosts what a step has, and nothing else."""
    for name, address in ADDRESSES.items():
        within(name, "nft", "flush", "ruleset")
        with inside(name):
            index = socket.if_nametoindex(CABLE)
            for number in syscall.attached(index):
                program = syscall.open_program(number)
                syscall.detach(program, index)
                os.close(program)
            if step.receives:
                attach(*receiving(), index)
            if step.decides:
                attach(*deciding(address), index)
            if step.has_filter:
                write_filter(name)
            if step.translates:
                write_translation()
        if step.rules:
            within(name, "nft", "-f", "-", stdin=step.rules.replace("; }", ";\n}"))


def attach(code: bytes, maps: tuple[int, ...], index: int) -> None:
    """Load a program, and run it on what an interface receives; it keeps its maps."""
    program = syscall.load(code, "bench")
    syscall.attach(program, index)
    for descriptor in (program, *maps):
        os.close(descriptor)


def receiving() -> tuple[bytes, tuple[int, ...]]:
    """Return the program of the native path, and its maps, which are empty."""
    paths = syscall.create_map(native.PATH_KEY.size, native.PATH_VALUE_SIZE, 64, "paths")
    vnis = syscall.create_map(
        native.VNI_KEY_SIZE, native.VNI_VALUE.size, 64, "vnis", syscall.INTERFACES
    )
    return native.receive_program(paths, vnis, 4789, mixed=True), (paths, vnis)


def deciding(address: str) -> tuple[bytes, tuple[int, ...]]:
    """Return a program that marks what nobody translates, by one look into a table of bits.

    Of IPv4 to the host's own address, and by destination port: TCP, UDP, or the id of an echo.
    """
    table = tracked_ports()
    program = Assembler()
    program.move(R6, R1)
    for field, wanted in ((numbers.PACKET_TYPE, 0), (numbers.PROTOCOL, numbers.IPV4)):
        program.load(WORD, R1, R6, field)
        program.jump_unequal(R1, wanted, "pass")
    program.load(WORD, R2, R6, numbers.DATA)
    program.load(WORD, R3, R6, numbers.DATA_END)
    program.move(R4, R2)
    program.add(R4, 14 + 20 + 8)
    program.jump_greater(R4, R3, "pass")
    program.load(BYTE, R1, R2, 14)
    program.jump_unequal(R1, 0x45, "pass")
    program.load(HALF, R1, R2, 14 + 6)
    program.jump_any_bit(R1, numbers.FRAGMENT, "pass")
    program.load(WORD, R1, R2, 14 + 16)
    program.set(R4, struct.unpack("<i", socket.inet_aton(address))[0])
    program.shift_left(R4, 32)
    program.shift_right(R4, 32)
    program.jump_different(R1, R4, "pass")
    load_port(program)
    program.load_map_value(R1, table)
    program.add_register(R1, R4)
    program.move(R3, R5)
    program.shift_right(R3, 3)
    program.mask(R3, TABLE_SIZE - 1)
    program.add_register(R1, R3)
    program.load(BYTE, R1, R1, 0)
    program.mask(R5, 7)
    program.shift_right_register(R1, R5)
    program.jump_any_bit(R1, 1, "pass")
    program.set(R1, UNTRACKED)
    program.store(WORD, R6, numbers.PRIORITY, R1)
    program.label("pass")
    program.set(R0, numbers.PASS)
    program.exit()
    return program.code(), (table,)


def load_port(program: Assembler) -> None:
    """Load the port into R5, and where the protocol's bits begin into R4."""
    program.load(BYTE, R1, R2, 14 + 9)
    program.set(R4, 0)
    program.jump_equal(R1, numbers.TCP, "port")
    program.set(R4, TABLE_SIZE)
    program.jump_equal(R1, numbers.UDP, "port")
    program.jump_unequal(R1, numbers.ICMP, "pass")
    program.load(BYTE, R1, R2, 34)
    program.jump_any_bit(R1, 0xF7, "pass")  # neither echo nor reply
    program.set(R4, 2 * TABLE_SIZE)
    program.load(HALF, R5, R2, 34 + 4)
    program.jump("look")
    program.label("port")
    program.load(HALF, R5, R2, 34 + 2)
    program.label("look")
    program.to_big_endian(R5, 16)


def tracked_ports() -> int:
    """Return a map of one bit for each port: those to masquerade with, and the published one."""
    bits = bytearray(3 * TABLE_SIZE)
    for start in range(0, len(bits), TABLE_SIZE):
        bits[start + BLOCK // 8 : start + 2 * BLOCK // 8] = bytes([0xFF]) * (BLOCK // 8)
    bits[PORT // 8] |= 1 << PORT % 8
    table = syscall.create_map(4, len(bits), 1, "ports", syscall.ARRAY)
    syscall.update(table, bytes(4), bytes(bits))
    return table


def write_filter(name: str) -> None:
    """Write the filter of the VXLAN port, with the other host as a member."""
    members = frozenset(parse_ip(text) for host, text in ADDRESSES.items() if host != name)
    table = underlay_filter.UnderlayTable(NODE, 4789, 7948)
    table.write(None, FilterState(members, frozenset({Vni(0x800001)})))
    table.close()


def write_translation() -> None:
    """Write the host's table, with an exposed network and a published port."""
    link = ExposedLink("ovh-blue", ((parse_ip("10.32.0.0"), 16),))
    port = PortForward("tcp", Ip(b""), PORT, parse_ip("10.32.0.9"), 80, borrowed=False)
    table = host_table.HostTable(NODE)
    table.write(HostState(links=frozenset({link}), ports=frozenset({port})))
    table.close()


def ping() -> float:
    """Return how long a flood ping takes, in milliseconds."""
    shown = within("h1", *FIRST, "ping", "-f", "-q", "-c", str(PINGS), ADDRESSES["h2"])
    found = re.search(r"time (\d+)ms", shown)
    assert found is not None, shown
    return float(found[1])


def udp(seconds: int) -> float:
    """Return the packets received per second from a sender at full speed."""
    client = ("h1", *FIRST, "iperf3", "-c", ADDRESSES["h2"], "-p", IPERF_PORT)
    asked = ("-t", str(seconds), "-J", "-u", "-b", "0", "-l", "64")
    why: Exception | None = None
    for _ in range(20):
        words = ("ip", "netns", "exec", "h2", *FIRST, "iperf3", "-s", "-1", "-p", IPERF_PORT)
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        time.sleep(0.1)  # it may not listen yet even so
        try:
            total = json.loads(within(*client, *asked))["end"]["sum"]
            return float((total["packets"] - total["lost_packets"]) / total["seconds"])
        except (RuntimeError, KeyError) as error:
            why = error
        finally:
            server.terminate()
            server.wait()
    raise SystemExit(f"iperf3 does not answer: {why}")


def shown(values: list[float]) -> str:
    """Return the median, with the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=10, help="of all steps; at least two")
    parser.add_argument("--seconds", type=int, default=1, help="of UDP in each measurement")
    asked = parser.parse_args()
    make_hosts()
    begun = dt.datetime.now().astimezone()
    ratios: dict[str, tuple[list[float], list[float]]] = {each.name: ([], []) for each in STEPS}
    for number in range(asked.rounds):
        for position in range(len(STEPS)):
            step = STEPS[(position + number) % len(STEPS)]
            if position % 2 == 0:
                equip(NOTHING)
                base_ms, base_rate = ping(), udp(asked.seconds)
            equip(step)
            ratios[step.name][0].append(ping() / base_ms)
            ratios[step.name][1].append(udp(asked.seconds) / base_rate)
    print(f"{begun:%Y-%m-%d %H:%M}, Linux {platform.release()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[1]:.0f}, {asked.rounds} rounds\n")  # fmt: skip
    print("| a host has | round trip : nothing | UDP packets : nothing |\n|---|---|---|")
    for name, (trips, rates) in ratios.items():
        print(f"| {name} | {shown(trips)} | {shown(rates)} |")


if __name__ == "__main__":
    main()
