"""The controls of a segment, typed on one host, with real frames to another."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.world import ips_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
STORM = """
import socket
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
source = raw.getsockname()[4]
own = b"\\xfe\\x80" + bytes(6) + bytes([source[0] ^ 2]) + source[1:3] + b"\\xff\\xfe" + source[3:]
group = b"\\xff\\x02" + bytes(13) + b"\\xfb"
for _ in range(5000):
    raw.send(b"\\xff" * 6 + source + b"\\x08\\x06\\0\\x01\\x08\\0\\x06\\x04\\0\\x01" + source
             + bytes(4) + bytes(6) + b"\\x0a\\x20\\x63\\x63" + bytes(18))
    raw.send(b"\\x33\\x33\\0\\0\\0\\xfb" + source + b"\\x86\\xdd\\x60\\0\\0\\0\\0\\x08\\x11\\xff"
             + own + group + b"\\x14\\xe9\\x14\\xe9\\0\\x08\\0\\0")
"""

SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, 32, 8 << 20)  # SO_SNDBUFFORCE: never wait for the queue
while True:
    sender.sendto(bytes(1000), (sys.argv[1], 7007))
"""
COUNT = """
import collections, json, socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("", 7007))
receiver.settimeout(60)
seen = collections.Counter(receiver.recvfrom(2000)[1][0] for _ in range(600))
print(json.dumps(seen))
"""


def shown(cluster: Cluster, number: int, name: str) -> dict[str, Any]:
    """Return an endpoint as a host lists it."""
    listed = cluster.json(number, "endpoint", "ls")["endpoints"]
    found: list[dict[str, Any]] = [each for each in listed if each["name"] == name]
    return found[0]


def test_a_storm_is_dropped_counted_and_reported(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """At the port of the container that sends it; its other traffic goes on, near and far."""
    cluster.attach(1, "noisy", "--storm", "10")
    code, out, err = cluster.inside(1, "noisy", sys.executable, "-c", STORM)
    assert code == 0, out + err
    assert shown(cluster, 1, "noisy")["dropped"]["storm"] > 5000  # so frames of IPv6 as well
    assert (shown(cluster, 2, "noisy")["storm"], shown(cluster, 2, "noisy")["dropped"]) == (
        10,
        None,
    )
    eventually(
        lambda: any(
            each["kind"] == "storm" and "noisy" in each["text"] for each in cluster.events(1)
        ),
        "the event",
    )
    for name in ("c1", "c2"):
        ip = cluster.ok(1, "overlayd", "dns", "lookup", name).strip()
        assert cluster.inside(1, "noisy", "ping", "-c2", "-i0.2", "-W5", ip)[0] == 0
    assert cluster.differences(1) == []
    metrics = cluster.ok(1, "overlayd", "metrics")
    assert 'overlayd_dropped_frames_total{network="blue",reason="storm"}' in metrics

    lifted = cluster.run(1, "overlayd", "attach", "noisy", "--network", "blue", "--storm", "none")
    assert "changed: storm 10 -> none" in lifted[2]
    cluster.inside(1, "noisy", sys.executable, "-c", STORM)
    assert shown(cluster, 1, "noisy")["dropped"] == {}


def test_a_priority_reaches_the_other_host(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """In packets of both families and their outer headers; a neighbor cannot raise its own."""
    subnets = ("--subnet", "10.66.0.0/24", "--subnet", "fd66::/64")
    cluster.ok(1, "overlayd", "network", "create", "qos", *subnets)
    cluster.attach(1, "urgent", "--priority", "5", network="qos")
    cluster.attach(1, "usual", network="qos")
    cluster.attach(2, "target", network="qos")
    target = ips_of(cluster, 1, "target")
    classes = {"urgent": ("0xa0", "0x0a00"), "usual": ("0", "0")}
    watches = {("outer", 4): ("", "eth1", "udp port 4789 and ip[1] = 0xa0")}
    for name, (dscp, traffic_class) in classes.items():
        ip, ip6 = ips_of(cluster, 1, name)
        inside = "ip netns exec target"
        watches[name, 4] = (inside, "eth0", f"icmp and src {ip} and ip[1] = {dscp}")
        is_class = f"ip6[0:2] & 0x0ff0 = {traffic_class}"
        watches[name, 6] = (inside, "eth0", f"icmp6 and src {ip6} and {is_class}")
    for (name, family), (inside, link, expression) in watches.items():
        command = f"timeout 120 tcpdump -nl -i {link} -c 1 '{expression}'"
        cluster.ok(2, "sh", "-c", f"{inside} {command} >/run/seen-{name}{family} 2>/dev/null &")

    def is_seen(name: str, family: int) -> bool:
        ping = ("ping", "-c1", "-W2", "-Q", "0xb8", target[family == 6])
        code, out, err = cluster.inside(1, "usual" if name == "usual" else "urgent", *ping)
        assert code == 0, out + err
        return bool(cluster.ok(2, "cat", f"/run/seen-{name}{family}"))

    for name, family in watches:
        eventually(lambda n=name, f=family: is_seen(n, f), f"the packet of {name}, IPv{family}")
    assert cluster.differences(1) == []
    if path_of(cluster, "qos")[0] == "native":  # the device alone copies it to the outer header
        assert "VXLAN device, as a container here has a priority" in path_of(cluster, "qos")[1]
    cluster.ok(1, "overlayd", "attach", "urgent", "--network", "qos", "--priority", "none")
    assert cluster.differences(1) == []
    assert "priority" not in path_of(cluster, "qos")[1]
    refused = cluster.run(1, "overlayd", "attach", "usual", "--network", "qos", "--priority", "8")
    assert refused[0] == 2
    assert "--priority: '8' is not a priority" in refused[2]


def path_of(cluster: Cluster, network: str) -> tuple[str, str]:
    """Return the path that a network takes on the first host, and why it is no faster one."""
    shown = cluster.json(1, "status")["networks"]
    (found,) = [each for each in shown if each["name"] == network]
    return found["data_path"], found["data_path_why"] or ""


def test_containers_share_a_rate_by_priority(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """The higher one gets the larger part, the lower one is not starved; `none` lifts it."""
    senders = {"first": cluster.attach(1, "first", "--priority", "6")}
    senders["second"] = cluster.attach(1, "second")
    target = cluster.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    told = cluster.ok(1, "overlayd", "network", "set", "blue", "--shared-rate", "4mbit")
    assert "blue  shared_rate  - → 4000000" in told, told

    def queue(number: int) -> str:
        each = "for name in $(ls /run/netns | grep ov-); do tc -n $name qdisc show; done"
        return cluster.ok(number, "sh", "-c", each)

    eventually(lambda: "htb 6f78: dev vxlan0" in queue(1), "the queue")
    for name in senders:
        command = f'ip netns exec {name} {sys.executable} -c "$0" {target}'
        cluster.ok(1, "sh", "-c", f"{command} >/dev/null 2>&1 & echo $! >/run/send-{name}", SEND)
    code, out, err = cluster.inside(2, "c2", sys.executable, "-c", COUNT)
    for name in senders:
        cluster.ok(1, "sh", "-c", f"kill $(cat /run/send-{name})")
    assert code == 0, out + err
    seen = json.loads(out)
    assert seen[senders["first"]] > 2 * seen[senders["second"]] > 0, seen
    assert cluster.differences(1) == []
    assert cluster.json(2, "network", "inspect", "blue")["shared_rate"] == 4_000_000
    metrics = cluster.ok(1, "overlayd", "metrics")
    counted = re.findall(
        r'dropped_frames_total{network="blue",reason="shared_rate"} (\d+)', metrics
    )
    assert int(counted[0]) > 0, metrics

    cluster.ok(2, "overlayd", "network", "set", "blue", "--shared-rate", "none")
    eventually(lambda: "htb" not in queue(1) + queue(2), "no queue")
    for name in senders:
        cluster.ok(1, "overlayd", "detach", name, "--network", "blue")


@pytest.mark.parametrize("number", ["9", "1000001", "many", "-1"])
def test_a_limit_out_of_range_is_refused(cluster: Cluster, number: str) -> None:
    """In words, with the range."""
    code, _, err = cluster.run(1, "overlayd", "network", "set", "blue", f"--storm={number}")
    assert code == 2
    assert f"--storm: {number!r} is not a number of frames a second" in err
    assert "Use 10 to 1000000" in err
