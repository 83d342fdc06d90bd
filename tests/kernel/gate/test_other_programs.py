"""What other programs have that speaks against a gate is found in real hosts."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.kernel import netns
from overlay.kernel.bpf import numbers, syscall
from overlay.kernel.bpf.assembler import R0, Assembler
from overlay.kernel.bpf.hooks.owner import EGRESS
from overlay.kernel.gate import other_programs
from overlay.kernel.gate.other_programs import admits_by_mark, other_use
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import attribute
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft.host.host_table import HostTable
from tests.kernel.gate.conftest import NODE, WANTED

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
_XDP, _XDP_PASS = 6, 2  # BPF_PROG_TYPE_XDP, and the verdict
_IFLA_XDP, _XDP_FD = 43 | 0x8000, 1  # linux/if_link.h

INGRESS = "chain ingress { type filter hook ingress device eth0 priority 0; drop\n }"


def chain(hook: str, rules: str = "", policy: str = "accept", kind: str = "filter") -> str:
    """Return a chain of nft(8)."""
    return f"chain {hook} {{ type {kind} hook {hook} priority 0; policy {policy}; {rules}\n}}"


def table(name: str, *chains: str) -> str:
    """Return a table of nft(8)."""
    return "\n".join((f"table {name} {{", *chains, "}"))


@pytest.fixture
def host(world: World) -> str:
    """Return a host with an interface that leads outside."""
    name = world.namespace("host")
    world.run(name, "ip", "link", "add", "eth0", "type", "veth", "peer", "other")
    return name


def use(world: World, host: str) -> str:
    """Return what speaks against a gate."""
    with netns.inside(world.fd(host)):
        return other_use(NODE, [socket.if_nametoindex("eth0")])


def configure(world: World, host: str, text: str) -> None:
    """Give a host rules of nft(8)."""
    file = os.memfd_create("rules")
    os.write(file, text.encode())
    world.run(host, "nft", "-f", f"/proc/{os.getpid()}/fd/{file}")
    os.close(file)


@pytest.mark.parametrize(
    "text",
    [
        table("inet f", chain("input", "tcp dport 22 accept; limit rate 5/second log; reject")),
        table("inet f", "chain other { meta mark set 1\n }", chain("input", "jump other")),
        table("inet f", chain("input", "accept"), chain("forward"), chain("output")),
        table("inet f", "flags dormant;", chain("forward", "ct state new drop", "drop")),
        table("bridge f", chain("forward", "ether type arp drop")),
    ],
    ids=["stateless", "marks", "empty", "dormant", "bridge"],
)  # fmt: skip
def test_rules_for_what_the_host_receives_are_no_reason(world: World, host: str, text: str) -> None:
    """Nor are chains without any: they see the same, and track nothing."""
    configure(world, host, text)
    assert use(world, host) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            table("ip n", chain("postrouting", kind="nat")),
            "tracked anyway, by table ip n, chain post",
        ),
        (table("inet f", chain("input", "ct state new drop")), "tracked anyway, by table inet f"),
        (
            table("ip6 f", "chain o { ct mark 1 accept\n }", chain("input", "jump o")),
            "tracked anyway, by table ip6 f, chain o",
        ),
        (table("inet f", chain("forward", policy="drop")), "table inet f, chain forward would not"),
        (table("inet overlayd_user", chain("forward", "drop")), "overlayd_user, chain forward"),
        (table("ip r", chain("prerouting", "tcp dport 8080 drop")), "chain prerouting would"),
        (table("ip m", chain("output", "meta mark set 1", kind="route")), "chain output would"),
        (
            table("netdev d", INGRESS),
            "table netdev d, chain ingress would",
        ),
        (
            table("inet overlayd_host_999999", chain("output", kind="nat")),
            "connections are tracked anyway, by table inet overlayd_host_999999, chain output",
        ),
        (
            table("inet overlayd_services_0", chain("output", kind="nat")),
            "connections are tracked anyway, by table inet overlayd_services_0, chain output",
        ),
        (table("inet f", "counter web { }", chain("input", 'tcp dport 80 counter name "web"')), ""),
    ],
    ids=[
        "nat",
        "state",
        "mark",
        "policy",
        "operator",
        "raw",
        "output",
        "ingress",
        "another agent",
        "virtual addresses",
        "counter",
    ],
)
def test_what_tracks_or_would_be_passed_by(world: World, host: str, text: str, why: str) -> None:
    """It is named; also another agent's, and overlayd's for the host's virtual addresses."""
    configure(world, host, text)
    assert why in use(world, host)
    assert bool(why) == bool(use(world, host))


def test_the_operators_marks(world: World, host: str) -> None:
    """A rule that sets one, not one that asks for it, and nobody else's."""
    asks = chain("forward", "meta mark 1 accept")
    for text, admits in (
        (table("inet other", chain("forward", "meta mark set 1")), False),
        (table("inet overlayd_user", asks), False),
        (table("inet overlayd_user", "chain x { meta mark set meta mark or 0x6f760000\n }"), True),
    ):
        with netns.inside(world.fd(host)):
            assert not admits_by_mark()
            configure(world, host, text)
            assert admits_by_mark() == admits


def test_own_hooks_are_no_reason(world: World, host: str) -> None:
    """Those of the form without a gate, as an agent of before left them."""
    with netns.inside(world.fd(host)), closing(HostTable(NODE)) as own:
        own.write(WANTED)
        assert "type nat" in world.run(host, "nft", "list", "ruleset")
        assert other_use(NODE, []) == ""


@pytest.mark.parametrize("queue", ["clsact", "htb"])
def test_tc_at_an_interface_outside(world: World, host: str, queue: str) -> None:
    """It may look at marks and priorities; at other interfaces, it does not matter."""
    assert use(world, host) == ""
    where = [] if queue == "clsact" else ["root"]
    world.run(host, "tc", "qdisc", "add", "dev", "other", *where, queue)
    assert use(world, host) == ""
    world.run(host, "tc", "qdisc", "add", "dev", "eth0", *where, queue)
    assert (
        use(world, host)
        == f"tc's {queue} on eth0 would not see the packets that it sees without a gate"
    )


def test_ordinary_queues_do_not_look_at_packets(world: World, host: str) -> None:
    """One that limits a rate takes all as they come."""
    rate = ("rate", "1gbit", "burst", "1mb", "latency", "50ms")
    world.run(host, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *rate)
    assert use(world, host) == ""


@pytest.mark.parametrize(("name", "is_reason"), [("ovn_000000", False), ("cil_from_netdev", True)])
def test_programs_of_others(world: World, host: str, name: str, *, is_reason: bool) -> None:
    """Those of the native path and of gates are overlayd's."""
    program = Assembler()
    program.set(R0, numbers.PASS)
    program.exit()
    with netns.inside(world.fd(host)):
        loaded = syscall.load(program.code(), name)
        syscall.attach(loaded, socket.if_nametoindex("eth0"), where=EGRESS)
        os.close(loaded)
    assert (f"eBPF program {name} on eth0" in use(world, host)) is is_reason


def test_xdp_programs(world: World, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What returns from a gate would meet it once more."""
    monkeypatch.setattr(syscall, "_SCHED_CLS", _XDP)
    program = Assembler()
    program.set(R0, _XDP_PASS)
    program.exit()
    with netns.inside(world.fd(host)):
        loaded = syscall.load(program.code(), "firewall")
        data = attribute(_IFLA_XDP, attribute(_XDP_FD, loaded.to_bytes(4, "little")))
        index = socket.if_nametoindex("eth0")
        with NetlinkSocket() as link:
            link.request((codec.RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + data))
        os.close(loaded)
    assert "an XDP program on eth0 would" in use(world, host)


def test_tables_of_iptables_legacy(world: World, host: str) -> None:
    """They are in the kernel beside nftables."""
    world.run(host, "iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-j", "ACCEPT")
    assert "iptables-legacy's table raw" in use(world, host)


def test_services_of_ipvs(tmp_path: Path) -> None:
    """The file of a kernel with IPVS has three lines without any."""
    lines = ["IP Virtual Server version 1.2.1 (size=4096)", "Prot LocalAddress:Port", "  -> Remote"]
    file = tmp_path / "ip_vs"
    file.write_text("\n".join(lines), encoding="ascii")
    assert other_programs._old_use(tmp_path) == ""
    file.write_text("\n".join([*lines, "TCP  0A000001:0050 wlc"]), encoding="ascii")
    assert other_programs._old_use(tmp_path) == "connections are tracked anyway, by IPVS"
