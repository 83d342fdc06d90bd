"""VLANs for containers, ipvlan, and rates from modules, which slim kernels lack.

Run by `make vm-test`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from overlay.lab import host_process, lab
from tests.e2e.test_kernels import lacking

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

pytestmark = [pytest.mark.netns, pytest.mark.e2e, pytest.mark.vm]
PATIENCE_S = 120.0  # an emulated machine is ten times slower
KILL = "kill -9 $(pgrep -f '[o]verlay.cli.main agent')"


@pytest.fixture(scope="module")
def pair(cluster_of: type[Cluster]) -> Iterator[Cluster]:
    """Two joined hosts on one underlay."""
    try:
        made = cluster_of(lab.make(2))
        lab.join(made.hosts)
        yield made
    finally:
        host_process.end(host_process.running())


def create(pair: Cluster, eventually: Callable[..., None], name: str, *options: str) -> None:
    """Create a network that both hosts know, or report what the kernel lacks."""
    code, _, err = pair.run(1, "overlayd", "network", "create", name, *options)
    if "this kernel has no" in err:
        lacking(err.splitlines()[0])
    assert code == 0, err
    known = ("overlayd", "network", "inspect", name)
    eventually(lambda: pair.run(2, *known)[0] == 0, "vm2 knows", PATIENCE_S)


def reaches(pair: Cluster, number: int, container: str, target: str) -> bool:
    """Return whether a ping from a bare container is answered."""
    return pair.inside(number, container, "ping", "-c1", "-W3", target)[0] == 0


def has_vlan(pair: Cluster, number: int) -> bool:
    """Return whether a host has VLAN 100."""
    return pair.run(number, "ip", "link", "show", "eth1.100")[0] == 0


def test_a_vlan_exists_while_containers_use_it(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """Containers of two hosts are on VLAN 100, apart from the untagged segment, over a kill -9."""
    create(pair, eventually, "tagged", "--driver", "macvlan", "--parent", "eth1.100",
           "--subnet", "10.71.0.0/24")  # fmt: skip
    assert not has_vlan(pair, 1)
    ips = {}
    for number, name in ((1, "t1"), (1, "t2"), (2, "t3")):
        add = ("overlayd", "container", "add", name, "--network", "tagged")
        ips[name] = pair.ok(number, *add).strip()
    assert "vlan protocol 802.1Q id 100" in pair.ok(1, "ip", "-d", "link", "show", "eth1.100")
    eventually(lambda: reaches(pair, 1, "t1", ips["t3"]), "the other host's", PATIENCE_S)
    assert reaches(pair, 1, "t1", ips["t2"])
    assert not reaches(pair, 1, "t1", "192.168.56.12")
    pair.ok(1, "ip", "link", "del", "eth1.100")
    eventually(lambda: reaches(pair, 1, "t1", ips["t3"]), "made anew", PATIENCE_S)
    eventually(lambda: reaches(pair, 1, "t2", ips["t3"]), "made anew", PATIENCE_S)
    pair.ok(1, "bash", "-c", KILL)
    assert reaches(pair, 1, "t1", ips["t3"])
    pair.ok(1, "overlayd", "join")
    pair.ok(1, "overlayd", "container", "rm", "t1")
    assert has_vlan(pair, 1)
    pair.ok(1, "overlayd", "container", "rm", "t2")
    assert not has_vlan(pair, 1)
    assert has_vlan(pair, 2)


def test_a_vlan_of_the_operator_stays(pair: Cluster, eventually: Callable[..., None]) -> None:
    """An existing VLAN is used, and kept after its last container."""
    create(pair, eventually, "theirs", "--driver", "macvlan", "--parent", "eth1.200",
           "--subnet", "10.72.0.0/24")  # fmt: skip
    pair.ok(2, "ip", "link", "add", "link", "eth1", "name", "eth1.200", "type", "vlan", "id", "200")
    pair.ok(2, "ip", "link", "set", "eth1.200", "up")
    pair.ok(2, "overlayd", "container", "add", "o1", "--network", "theirs")
    pair.ok(2, "overlayd", "container", "rm", "o1")
    assert "eth1.200" in pair.ok(2, "ip", "link")
    pair.ok(2, "ip", "link", "del", "eth1.200")


def test_a_vlan_of_an_interface_can_be_plugged(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """Containers of both hosts reach a machine in VLAN 100 behind eth2, and none without a tag."""
    create(pair, eventually, "yard", "--subnet", "10.73.0.0/24")
    ips = [
        pair.ok(number, "overlayd", "container", "add", name, "--network", "yard").strip()
        for number, name in ((1, "y1"), (2, "y2"))
    ]
    for command in (
        "ip netns add outside",
        "ip link add eth2 type veth peer wire netns outside",
        "ip link set eth2 up",
        "ip -n outside link set wire mtu 1450 up",
        "ip -n outside link add link wire name wire.100 type vlan id 100",
        "ip -n outside address add 10.73.0.200/24 dev wire.100",
        "ip -n outside link set wire.100 up",
        "ip -n outside address add 10.73.0.201/24 dev wire",
    ):
        pair.ok(1, *command.split())
    pair.ok(1, "overlayd", "network", "plug", "yard", "eth2.100")
    assert "vlan protocol 802.1Q id 100" in pair.ok(1, "ip", "-d", "link", "show", "eth2.100")
    for number, name in ((1, "y1"), (2, "y2")):
        eventually(
            lambda number=number, name=name: reaches(pair, number, name, "10.73.0.200"),
            f"the machine, by {name}", PATIENCE_S,
        )  # fmt: skip
    outside = ("ip", "netns", "exec", "outside", "ping", "-c1", "-W3", "-I")
    assert pair.run(1, *outside, "wire.100", ips[1])[0] == 0
    assert pair.run(1, *outside, "wire", ips[1])[0] != 0
    pair.ok(1, "overlayd", "network", "unplug", "yard")
    assert "eth2.100" not in pair.ok(1, "ip", "link")
    assert not reaches(pair, 2, "y2", "10.73.0.200")
    for number, name in ((1, "y1"), (2, "y2")):
        pair.ok(number, "overlayd", "container", "rm", name)
    pair.ok(1, "overlayd", "network", "rm", "yard")


def test_ipvlan_containers_share_the_mac_of_their_parent(
    pair: Cluster, eventually: Callable[..., None]
) -> None:
    """They reach each other and the other host; a deleted one is restored; --mac is refused."""
    create(pair, eventually, "shared", "--driver", "ipvlan", "--parent", "eth1",
           "--subnet", "192.168.56.0/24", "--gateway", "192.168.56.12",
           "--ip-range", "192.168.56.128/25")  # fmt: skip
    ips = {}
    for number, name in ((1, "i1"), (1, "i2"), (2, "i3")):
        add = ("overlayd", "container", "add", name, "--network", "shared")
        ips[name] = pair.ok(number, *add).strip()
    for target in (ips["i2"], ips["i3"], "192.168.56.12"):
        eventually(lambda target=target: reaches(pair, 1, "i1", target), target, PATIENCE_S)
    words = ("ip", "-br", "link", "show")
    macs = {pair.inside(1, name, *words, "eth0")[1].split()[2] for name in ("i1", "i2")}
    assert macs == {pair.ok(1, *words, "eth1").split()[2]}
    pair.inside(1, "i1", "ip", "link", "del", "eth0")
    eventually(lambda: reaches(pair, 1, "i1", ips["i3"]), "made again", PATIENCE_S)
    code, _, err = pair.run(1, "overlayd", "container", "add", "x", "--network", "shared",
                            "--mac", "02:00:00:00:00:09")  # fmt: skip
    assert (code, "is not supported by driver ipvlan" in err) == (2, True)
    pair.ok(1, "overlayd", "network", "create", "rival", "--driver", "macvlan", "--parent",
            "eth1.300", "--subnet", "10.73.0.0/24")  # fmt: skip
    code, _, err = pair.run(1, "overlayd", "network", "create", "clash", "--driver", "macvlan",
                            "--parent", "eth1", "--subnet", "10.74.0.0/24")  # fmt: skip
    assert (code, "macvlan or ipvlan devices, not both" in err) == (6, True), err


def test_rates_load_their_kernel_modules(pair: Cluster) -> None:
    """With Debian's modules, a limited container has both of its token buckets."""
    pair.ok(1, "overlayd", "network", "create", "blue", "--subnet", "10.32.0.0/16")
    pair.ok(1, "overlayd", "container", "add", "r1", "--network", "blue", "--rate", "10mbit")
    sandbox = pair.sandbox(1)
    shown = pair.inside(1, sandbox, "tc", "qdisc")[1]
    assert shown.count("rate 10Mbit") == 2
    assert reaches(pair, 1, "r1", "10.32.0.1")
    assert pair.differences(1) == []
