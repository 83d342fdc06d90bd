"""Throughput with a growing number of remote endpoints, and of peers that get floods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from overlay.lab.host_process import HostProcess
from scripts.benchmark import dataplane
from scripts.benchmark.contenders import Contender, ok

ROUNDS = 3
_STEPS = (("as the agent left them", 0, 0), ("and 1,000 more endpoints", 1_000, 0),
          ("and 50,000 more endpoints", 50_000, 0),
          ("and 1,000 more peers", 50_000, 1_000))  # fmt: skip


def measure(
    hosts: Sequence[HostProcess], ours: Contender, seconds: int, tell: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Measure with rows for endpoints and peers that do not exist.

    The agents are killed first, so that nothing removes the rows; forwarding continues.
    """
    for host in hosts:
        ok(host, "bash", "-c", "pkill -9 -f '[o]verlay[^ ]* agent' || true")
    sandbox = next(line.split()[0] for line in ok(hosts[0], "ip", "netns").splitlines()
                   if line.startswith("ov-"))  # fmt: skip
    found: dict[str, dict[str, list[float]]] = {}
    endpoints = peers = 0
    for name, endpoints_wanted, peers_wanted in _STEPS:
        tell(f"throughput with rows {name}")
        lines = [*_endpoint_rows(endpoints, endpoints_wanted), *_peer_rows(peers, peers_wanted)]
        if lines:
            script = "\n".join(lines) + "\n"
            ok(hosts[0], "ip", "netns", "exec", sandbox, "bridge", "-b", "-", stdin=script)
        endpoints, peers = endpoints_wanted, peers_wanted
        found[name] = {
            "tcp": [dataplane.tcp(ours, seconds) for _ in range(ROUNDS)],
            "udp": [dataplane.udp(ours, seconds) for _ in range(ROUNDS)],
        }
    return found


def _endpoint_rows(first: int, end: int) -> Iterator[str]:
    for number in range(first, end):
        mac = "02:be:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(4, "big"))
        yield f"fdb replace {mac} dev vxlan0 dst 192.0.2.{number % 250 + 1} self permanent"
        yield f"fdb replace {mac} dev vxlan0 master extern_learn"


def _peer_rows(first: int, end: int) -> Iterator[str]:
    for number in range(first, end):
        vtep = f"198.{18 + number // 60_000}.{number // 250 % 250}.{number % 250 + 1}"
        yield f"fdb append 00:00:00:00:00:00 dev vxlan0 dst {vtep} self permanent"
