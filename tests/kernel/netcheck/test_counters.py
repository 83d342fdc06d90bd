"""Counters and limits, read from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.kernel.netcheck import counters
from overlay.kernel.netcheck.counters import ChecksumErrors, Counters

SNMP = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 1 64 12
Tcp: RtoAlgorithm InSegs InCsumErrors
Tcp: 1 5 5
Udp: InDatagrams RcvbufErrors InCsumErrors
Udp: 84 3 7
"""
NETSTAT = """\
TcpExt: SyncookiesSent IPReversePathFilter
TcpExt: 0 4
"""
CONNTRACK = """\
entries  clashres drop early_drop
00000010 00000000 00000001 0000000a
00000010 00000000 00000002 00000000
"""
ARP = """\
IP address       HW type     Flags       HW address            Mask     Device
192.168.56.12    0x1         0x2         08:00:27:aa:bb:cc     *        eth1
192.168.56.99    0x1         0x0         00:00:00:00:00:00     *        eth1
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a /proc of one namespace."""
    net = tmp_path / "thread-self/net"
    (net / "stat").mkdir(parents=True)
    (net / "snmp").write_text(SNMP)
    (net / "netstat").write_text(NETSTAT)
    (net / "snmp6").write_text("Udp6RcvbufErrors\t2\nUdp6InCsumErrors\t1\n")
    (net / "stat/nf_conntrack").write_text(CONNTRACK)
    (net / "arp").write_text(ARP)
    netfilter = tmp_path / "sys/net/netfilter"
    netfilter.mkdir(parents=True)
    (netfilter / "nf_conntrack_count").write_text("95\n")
    (netfilter / "nf_conntrack_max").write_text("100\n")
    for name, value in (("all", 1), ("eth1", 0)):
        folder = tmp_path / "sys/net/ipv4/conf" / name
        folder.mkdir(parents=True)
        (folder / "rp_filter").write_text(f"{value}\n")
    return tmp_path


def test_the_counters_of_both_families_are_added(proc: Path) -> None:
    """Each from its own file."""
    assert counters.read_counters(proc) == Counters(
        rp_filter_drops=4,
        udp_checksum_errors=8,
        tcp_checksum_errors=5,
        buffer_errors=5,
        conntrack_drops=13,
    )


def test_wrong_checksums_alone_are_the_same(proc: Path) -> None:
    """From the fields of their names, wherever these are; a kernel without IPv6 has one file."""
    assert counters.read_checksum_errors(proc) == ChecksumErrors(udp=8, tcp=5)
    (proc / "thread-self/net/snmp6").unlink()
    assert counters.read_checksum_errors(proc) == ChecksumErrors(udp=7, tcp=5)


def test_the_running_kernel_has_them() -> None:
    """By the names that are looked for."""
    net = Path("/proc/thread-self/net")
    lines = [line.split() for line in (net / "snmp").read_text().splitlines()]
    named = [words[0] for words in lines if "InCsumErrors" in words]
    assert {"Tcp:", "Udp:"} <= {*named}
    if (net / "snmp6").exists():
        assert "Udp6InCsumErrors" in (net / "snmp6").read_text()


def test_missing_files_count_nothing(tmp_path: Path) -> None:
    """A kernel without a feature has no such file."""
    assert counters.read_counters(tmp_path) == Counters()
    assert counters.read_checksum_errors(tmp_path) == ChecksumErrors()
    assert counters.full_tables(Counters(), Counters(), tmp_path) == []


def test_a_table_that_is_nearly_full_is_reported(proc: Path) -> None:
    """With the sysctl that raises its limit."""
    (table,) = counters.full_tables(Counters(), Counters(conntrack_drops=2), proc)

    assert (table.entries, table.limit, table.refused) == (95, 100, 2)
    assert table.sysctl == "net.netfilter.nf_conntrack_max"


def test_a_neighbor_table_counts_once_it_refuses(proc: Path) -> None:
    """A host on a network of many containers has more permanent entries than the limit is."""
    limit = proc / "sys/net/ipv4/neigh/default/gc_thresh3"
    limit.parent.mkdir(parents=True)
    limit.write_text("1024")
    (proc / "net/stat").mkdir(parents=True, exist_ok=True)
    (proc / "net/stat/arp_cache").write_text("entries table_fulls\n0000c350 00000003\n")
    before = Counters(conntrack_drops=2)

    def neighbors(refused: int) -> list[int]:
        after = Counters(conntrack_drops=2, neighbor_overflows=refused)
        return [each.entries for each in counters.full_tables(before, after, proc)[1:]]

    assert neighbors(0) == []
    assert neighbors(3) == [50_000]


def test_the_stricter_rp_filter_is_in_force(proc: Path) -> None:
    """As the kernel takes the greater of both."""
    assert counters.rp_filter("eth1", proc) == 1
    assert counters.rp_filter("nowhere", proc) == 1


@pytest.mark.parametrize(
    ("address", "state"),
    [
        ("192.168.56.12", (True, False)),
        ("192.168.56.99", (True, True)),
        ("10.0.0.1", (False, False)),
    ],
)
def test_a_neighbor_without_a_mac_is_missing(
    proc: Path, address: str, state: tuple[bool, bool]
) -> None:
    """An address elsewhere is no neighbor."""
    assert counters.neighbor_state(address, proc) == state


def test_modules_are_known_where_they_are_listed(tmp_path: Path) -> None:
    """Built in, to be loaded, or loaded; without any list nothing is said."""
    assert counters.missing_modules("6.1", tmp_path) == []
    folder = tmp_path / "lib/modules/6.1"
    folder.mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/net/bridge/bridge.ko\n")
    (folder / "modules.dep").write_text("kernel/drivers/net/veth.ko.xz:\n")
    (tmp_path / "sys/module/nf_tables").mkdir(parents=True)

    assert counters.missing_modules("6.1", tmp_path) == ["vxlan"]
