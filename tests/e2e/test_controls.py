"""The controls of a segment, typed on one host, with real frames to another."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Cluster

pytestmark = pytest.mark.e2e
STORM = """
import socket
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
source = raw.getsockname()[4]
for _ in range(5000):
    raw.send(b"\\xff" * 6 + source + b"\\x08\\x06\\0\\x01\\x08\\0\\x06\\x04\\0\\x01" + source
             + bytes(4) + bytes(6) + b"\\x0a\\x20\\x63\\x63" + bytes(18))
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
    assert shown(cluster, 1, "noisy")["dropped"]["storm"] > 0
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
    assert cluster.json(1, "verify")["differences"] == []
    metrics = cluster.ok(1, "overlayd", "metrics")
    assert 'overlayd_dropped_frames_total{network="blue",reason="storm"}' in metrics

    lifted = cluster.run(1, "overlayd", "attach", "noisy", "--network", "blue", "--storm", "none")
    assert "changed: storm 10 -> none" in lifted[2]
    cluster.inside(1, "noisy", sys.executable, "-c", STORM)
    assert shown(cluster, 1, "noisy")["dropped"] == {}


def test_a_priority_reaches_the_other_host(
    cluster: Cluster, eventually: Callable[..., None]
) -> None:
    """In the packet and its outer header; a neighbor without one cannot raise its own."""
    senders = {"urgent": cluster.attach(1, "urgent", "--priority", "5")}
    senders["usual"] = cluster.attach(1, "usual")
    target = cluster.ok(1, "overlayd", "dns", "lookup", "c2").strip()
    watches = {
        "outer": ("", "eth1", "udp port 4789 and ip[1] = 0xa0"),
        "urgent": (
            "ip netns exec c2",
            "eth0",
            f"icmp and src {senders['urgent']} and ip[1] = 0xa0",
        ),
        "usual": ("ip netns exec c2", "eth0", f"icmp and src {senders['usual']} and ip[1] = 0"),
    }
    for name, (inside, link, expression) in watches.items():
        command = f"timeout 120 tcpdump -nl -i {link} -c 1 '{expression}'"
        cluster.ok(2, "sh", "-c", f"{inside} {command} >/run/seen-{name} 2>/dev/null &")

    def is_seen(name: str, sender: str) -> bool:
        code, out, err = cluster.inside(1, sender, "ping", "-c1", "-W2", "-Q", "0xb8", target)
        assert code == 0, out + err
        return bool(cluster.ok(2, "cat", f"/run/seen-{name}"))

    for name, sender in (("urgent", "urgent"), ("outer", "urgent"), ("usual", "usual")):
        eventually(lambda n=name, s=sender: is_seen(n, s), f"the packet of {name}")
    assert cluster.json(1, "verify")["differences"] == []
    (blue,) = cluster.json(1, "status")["networks"]
    if blue["data_path"] == "native":  # the VXLAN device alone copies it to the outer header
        assert "VXLAN device, as a container here has a priority" in blue["data_path_why"]
    cluster.ok(1, "overlayd", "attach", "urgent", "--network", "blue", "--priority", "none")
    assert cluster.json(1, "verify")["differences"] == []
    (blue,) = cluster.json(1, "status")["networks"]
    assert "priority" not in (blue["data_path_why"] or "")
    refused = cluster.run(1, "overlayd", "attach", "usual", "--network", "blue", "--priority", "8")
    assert refused[0] == 2
    assert "--priority: '8' is not a priority" in refused[2]


@pytest.mark.parametrize("number", ["9", "1000001", "many", "-1"])
def test_a_limit_out_of_range_is_refused(cluster: Cluster, number: str) -> None:
    """In words, with the range."""
    code, _, err = cluster.run(1, "overlayd", "network", "set", "blue", f"--storm={number}")
    assert code == 2
    assert f"--storm: {number!r} is not a number of frames a second" in err
    assert "Use 10 to 1000000" in err
