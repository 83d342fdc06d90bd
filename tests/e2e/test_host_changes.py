"""The host changes under a running agent: a full or read-only disk, a moving underlay."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from overlay.lab import host_process, lab
from overlay.lab.driver import (
    AgentDriver,
    ApiRefusedError,
    catch_up,
    connect,
    differences,
    end_all,
    endpoints,
    join_all,
    wait_until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
STATE = "/var/lib/overlayd"


def attach(driver: AgentDriver, name: str) -> str:
    """Create a namespace if it is missing, and attach it; return its address."""
    driver.run("sh", "-c", f"ip netns add {name} 2>/dev/null || true")
    answer = driver.post("/v1/endpoints", target=f"netns:{name}", networks=["blue"])
    ip = str(answer["endpoints"][0]["ip"])
    catch_up(answer["unconfirmed"], ip)
    return ip


def pings(driver: AgentDriver, source: str, address: str) -> bool:
    """Return whether a container gets an answer."""
    command = ("ip", "netns", "exec", source, "ping", "-c1", "-W1", address)
    return host_process.run(driver.host, *command).returncode == 0


def health(driver: AgentDriver) -> str:
    """Return the health messages of a host's status."""
    return " ".join(item["text"] for item in driver.get("/v1/status")["health"])


@pytest.fixture(scope="module")
def two() -> Iterator[list[AgentDriver]]:
    """Two joined hosts with a container each; the second's state is on a small disk."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(2))
        drivers[1].run("mkdir", "-p", STATE)
        drivers[1].run("mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "disk", STATE)
        join_all(drivers)
        drivers[0].post("/v1/networks", name="blue", subnets=[{"subnet": "10.32.0.0/16"}])
        yield drivers
    finally:
        end_all(drivers)


def sound(two: list[AgentDriver]) -> bool:
    """Return whether both hosts agree with each other and with their kernels."""
    return endpoints(two[0]) == endpoints(two[1]) and not any(map(differences, two))


FILL = f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null; true"
EMPTY = f"rm {STATE}/ballast"


def test_a_port_that_another_vxlan_device_has(two: list[AgentDriver]) -> None:
    """An attach is refused, and names the device; nothing is left, and it works once that is gone.

    It is flow-based, as Open vSwitch and some container networks make it, and shares no port.
    """
    first, two_ = attach(two[0], "c1"), two[1]
    other = ("ip", "link", "add", "ovsvx", "type", "vxlan", "external", "dstport", "4789")
    two_.run(*other)
    two_.run("ip", "link", "set", "ovsvx", "up")
    with pytest.raises(ApiRefusedError) as refused:
        attach(two_, "c2")
    assert "network blue does not work on this host" in str(refused.value)
    assert "UDP port 4789 is in use by ovsvx" in str(refused.value)
    assert "c2" not in {name for name, _, _ in endpoints(two_)}
    two_.run("ip", "link", "del", "ovsvx")

    attach(two_, "c2")
    wait_until(lambda: pings(two_, "c2", first), "the container")
    two_.post("/v1/detach", target="netns:c2")
    two[0].post("/v1/detach", target="netns:c1")


def test_a_full_disk(two: list[AgentDriver]) -> None:
    """Attach and detach are refused with the reason, and nothing is half done.

    Running containers keep working, and everything works again once the disk has space.
    """
    one, two_ = two
    first, second = attach(one, "c1"), attach(two_, "c2")
    two_.run("sh", "-c", FILL)
    two_.run("ip", "netns", "add", "late")
    try:
        with pytest.raises(ApiRefusedError) as refusal:
            attach(two_, "late")
        assert "cannot write the state file" in refusal.value.answer["what"]
        assert "keeps running" in refusal.value.answer["hint"]
        with pytest.raises(ApiRefusedError):
            two_.post("/v1/detach", target="netns:c2")
        assert "the state cannot be written" in health(two_)
        assert "late" not in {name for name, _, _ in endpoints(one)}
        assert two_.run("ip", "-n", "late", "-o", "link").count("\n") == 1
        assert pings(one, "c1", second)
        assert pings(two_, "c2", first)
        attach(one, "meanwhile")  # records of others still reach the kernel
        wait_until(lambda: sound(two), "the hosts equal, the disk still refusing")
    finally:
        two_.run("sh", "-c", EMPTY)

    assert pings(one, "c1", attach(two_, "late"))
    wait_until(lambda: "state" not in health(two_), "no complaint any more")
    for driver, name in ((two_, "late"), (one, "meanwhile")):
        driver.post("/v1/detach", target=f"netns:{name}")
        driver.run("ip", "netns", "del", name)
    wait_until(lambda: sound(two), "the hosts equal")


def test_an_unwritable_disk_delays_a_rotation(two: list[AgentDriver]) -> None:
    """The new key is not used before it is on every disk.

    The previous key stays in use, the waiting host is named, the error is logged once, and the
    rotation continues once the disk is writable.
    """
    one, two_ = two
    first, second = attach(one, "c1"), attach(two_, "c2")
    before = one.get("/v1/keys")["generation"]
    two_.run("sh", "-c", FILL)
    try:
        with pytest.raises(ApiRefusedError) as refusal:
            one.post("/v1/keys/rotate")
        shown = [driver.get("/v1/keys") for driver in two]
        told = [
            event["text"]
            for event in two_.get("/v1/events")["events"]
            if event["kind"] == "key" and "cannot write" in event["text"]
        ]
        assert pings(one, "c1", second)
        assert pings(two_, "c2", first)
    finally:
        two_.run("sh", "-c", EMPTY)

    assert (refusal.value.answer["code"], refusal.value.answer["why"]) == (
        "timed-out",
        "waiting for vm2",
    )
    assert [keys["generation"] for keys in shown] == [before, before]
    assert (shown[0]["step"], shown[0]["waiting_for"]) == ("distributing", ["vm2"])
    assert len(told) == 1, told
    wait_until(
        lambda: {driver.get("/v1/keys")["generation"] for driver in two} == {before + 1},
        "the new key in use",
    )
    wait_until(lambda: sound(two), "the hosts equal")


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [(FILL, EMPTY), (f"mount -o remount,ro {STATE}", f"mount -o remount,rw {STATE}")],
    ids=["full", "read-only"],
)
def test_a_start_waits_for_a_writable_disk(two: list[AgentDriver], spoil: str, mend: str) -> None:
    """Until then the error says why it does not start, and forwarding continues."""
    one, two_ = two
    first, second = attach(one, "c1"), attach(two_, "c2")
    two_.end(signal.SIGKILL)
    two_.run("sh", "-c", spoil)
    two_.launch()
    code = two_.wait()
    log = "\n".join(two_.log_tail().splitlines()[-3:])  # what happened, why, what to do next
    assert pings(one, "c1", second)
    two_.run("sh", "-c", mend)
    two_.start()

    assert code == 1, log
    assert "cannot write the state" in log
    assert pings(two_, "c2", first)
    wait_until(lambda: sound(two), "the hosts equal")


def test_a_new_underlay_address_is_followed(two: list[AgentDriver]) -> None:
    """Card, gossip and every host's rows follow it, and containers reach each other."""
    one, two_ = two
    second = attach(two_, "c2")
    attach(one, "c1")
    two_.run("ip", "address", "add", "192.168.56.112/24", "dev", "eth1")
    two_.run("ip", "address", "del", "192.168.56.12/24", "dev", "eth1")
    two_.run("sh", "-c", "ip address add 192.168.56.112/24 dev eth1 2>/dev/null || true")

    wait_until(
        lambda: two_.get("/v1/status")["node"]["address"] == "192.168.56.112", "the new address"
    )
    took_s = wait_until(lambda: pings(one, "c1", second), "the container, at the new address")
    print(f"reachable {took_s:.1f} s after the agent followed")  # noqa: T201 - asked for
    wait_until(lambda: sound(two), "the hosts equal")
    shown = json.dumps(one.get("/v1/members"))
    assert "192.168.56.112" in shown
    assert '192.168.56.12"' not in shown
    wait_until(lambda: health(two_) == health(one) == "", "nothing to complain of", 60.0)
    told = [event["text"] for event in two_.get("/v1/events")["events"]]
    assert any("192.168.56.12 to 192.168.56.112 on eth1: followed" in text for text in told)


def test_an_underlay_interface_goes_down_and_up(two: list[AgentDriver]) -> None:
    """`status` reports that alone, not its members; once it is up, everything works again."""
    one, two_ = two
    second = attach(two_, "c2")
    two_.run("ip", "link", "set", "eth1", "down")
    wait_until(lambda: "eth1 is down" in health(two_), "the complaint")
    wait_until(lambda: two_.get("/v1/status")["cluster"]["members"]["alive"] == 1, "vm1 silent")
    (line,) = two_.get("/v1/status")["health"]
    assert "eth1 is down" in line["text"]
    assert "forget" not in line["hint"]
    two_.run("ip", "link", "set", "eth1", "up")

    wait_until(lambda: pings(one, "c1", second), "the container, with the interface up again")
    wait_until(lambda: health(two_) == health(one) == "", "nothing to complain of", 90.0)
    wait_until(lambda: sound(two), "the hosts equal")


@contextmanager
def second_interface(driver: AgentDriver, address: str, *peer: str) -> Iterator[None]:
    """Give a host eth2 for a block; `peer` is its cable's other end, in the words of ip(8).

    It goes whatever happens: a failed test that left it would have an agent follow its address.
    """
    enter = ["nsenter", "--target", str(driver.host.pid), "--net", "ip", "link"]
    # The peer may be placed by pid, which `ip` looks up in the machine's own /proc.
    subprocess.run([*enter, "add", "eth2", "type", "veth", "peer", "name", *peer], check=True)
    try:
        driver.run("ip", "address", "add", address, "dev", "eth2")
        driver.run("ip", "link", "set", "eth2", "up")
        yield
    finally:
        driver.run("ip", "link", "del", "eth2")


def test_a_second_underlay_interface_is_not_used_early(
    two: list[AgentDriver],
) -> None:
    """While the first one has its address, another one is not used."""
    _, two_ = two
    before = two_.get("/v1/status")["node"]
    with second_interface(two_, "10.200.0.2/24", "eth3"):
        second = attach(two_, "c2")

        assert pings(two[0], "c1", second)
        assert two_.get("/v1/status")["node"] == before


def test_two_interfaces_on_one_subnet_carry_the_overlay(two: list[AgentDriver]) -> None:
    """One host answers on both, as Linux does; the other sends by a second link.

    The way back is the first link, which no route of the other host names: it is reported.
    """
    one, two_ = two
    second, own = attach(two_, "c2"), one.address
    peer = str(two_.get("/v1/status")["node"]["address"])
    other_end = ("eth2", "netns", str(two_.host.pid))
    with second_interface(one, "192.168.56.211/24", *other_end):
        two_.run("ip", "link", "set", "eth2", "up")
        two_.run("ip", "route", "add", f"{own}/32", "dev", "eth2", "src", peer)

        wait_until(lambda: pings(two_, "c2", attach(one, "c1")), "the container, by two links")
        assert pings(one, "c1", second)
        text = f"packets of {one.host.name} come by eth1, which does not lead to it"
        wait_until(lambda: health(two_) == text, "the asymmetry")
        # A packet may have come by the second link before this host knew it.
        wait_until(lambda: health(one) == "", "nothing to complain of on the other host", 60.0)
        wait_until(lambda: differences(one) == differences(two_) == [], "kernels as planned")
    wait_until(lambda: pings(one, "c1", second), "the container, by the first link")
    wait_until(lambda: health(two_) == health(one) == "", "nothing to complain of", 90.0)


def test_an_underlay_without_an_address_is_reported(two: list[AgentDriver]) -> None:
    """Without an address the agent reports the reason, and continues once there is one."""
    one, two_ = two
    second = attach(two_, "c2")
    address = two_.get("/v1/status")["node"]["address"]
    two_.run("ip", "address", "flush", "dev", "eth1")
    wait_until(lambda: "the underlay:" in health(two_), "the complaint")
    two_.run("ip", "address", "add", f"{address}/24", "dev", "eth1")

    wait_until(lambda: pings(one, "c1", second), "the container, with the address back", 60.0)
    wait_until(lambda: health(two_) == health(one) == "", "nothing to complain of", 90.0)


def renumber(two: list[AgentDriver], subnet: str) -> None:
    """Give both hosts addresses of another subnet, and wait until their agents have them."""
    wanted = [f"192.168.{subnet}.1{each.number}" for each in two]
    for each, address in zip(two, wanted, strict=True):
        each.run("sh", "-c", f"ip addr flush dev eth1; ip addr add {address}/24 dev eth1")

    def moved() -> bool:
        return [each.get("/v1/status")["node"]["address"] for each in two] == wanted

    wait_until(moved, "the new addresses")


def test_renumbered_hosts_find_each_other_again(two: list[AgentDriver]) -> None:
    """By one address that a person names, by their names, and moved by hand; containers stay."""
    one, two_ = two
    first, second = attach(one, "c1"), attach(two_, "c2")
    renumber(two, "60")
    two_.post("/v1/join", peers=["192.168.60.11"])
    wait_until(lambda: pings(two_, "c2", first) and pings(one, "c1", second), "by an address")

    for each in two:
        each.run("sh", "-c", "printf '192.168.61.11 vm1\\n192.168.61.12 vm2\\n' >> /etc/hosts")
    renumber(two, "61")
    wait_until(
        lambda: pings(two_, "c2", first) and pings(one, "c1", second), "by their names", 90.0
    )

    for each in two:
        each.run("ip", "addr", "add", f"192.168.56.1{each.number}/24", "dev", "eth1")
        joined = each.post("/v1/join", underlay=f"192.168.56.1{each.number}")
        assert joined["node"]["address"] == f"192.168.56.1{each.number}"
        assert joined["already"]
    wait_until(lambda: pings(two_, "c2", first) and pings(one, "c1", second), "moved by hand")
    with pytest.raises(ApiRefusedError, match="this host has no address"):
        one.post("/v1/join", underlay="192.168.99.1")
    for each in two:
        each.run("ip", "addr", "del", f"192.168.61.1{each.number}/24", "dev", "eth1")
    wait_until(lambda: health(two_) == health(one) == "", "nothing to complain of", 90.0)


REBOOT = """
for n in $(ls /run/netns); do ip netns del $n; done
for t in $(nft list tables | grep -o 'overlayd[^ ]*'); do nft delete table inet $t; done
rm -rf /run/overlayd
"""


def test_a_reboot_rebuilds_the_sandbox(two: list[AgentDriver]) -> None:
    """The sandbox is rebuilt from the state file.

    Containers that no longer exist are withdrawn on all hosts, and new ones with their names can
    be attached.
    """
    one, two_ = two
    first = attach(one, "c1")
    attach(two_, "stays")
    attach(two_, "ends")
    two_.end(signal.SIGKILL)
    two_.run("sh", "-c", REBOOT)
    two_.run("ip", "netns", "add", "stays")
    two_.start()
    wait_until(lambda: "ends" not in {name for name, _, _ in endpoints(one)}, "the end told")
    wait_until(lambda: sound(two), "the hosts equal")

    attach(two_, "stays")
    wait_until(lambda: sound(two), "the hosts equal")
    assert pings(two_, "stays", first)
    two_.post("/v1/detach", target="netns:stays")
