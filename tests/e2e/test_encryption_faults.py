"""Five hosts on an encrypted network, and what happens to hosts and underlay; `make chaos` runs it.

Everything is done under a stream of packets, and the underlay of two hosts shows none in clear.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from overlay.lab.driver import join_all, wait_until
from overlay.lab.fixtures import lab_cluster
from tests.e2e.vault import (
    IN_CLEAR,
    Floods,
    Vault,
    capture,
    change_address,
    narrow,
    nothing_in_clear,
)

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def five() -> Iterator[Vault]:
    """Return five hosts whose only network is encrypted."""
    with lab_cluster(5, populated=False) as made:
        join_all(made.drivers)
        vault = Vault(made.drivers)
        wait_until(vault.all_reach, "all containers")
        yield vault


def cut_off(vault: Vault) -> None:
    """Cut a host off until the others hold it for dead, then connect it again."""
    vault.host(1).run("ip", "link", "set", "eth1", "down")
    wait_until(
        lambda: (
            [m["state"] for m in vault.host(2).get("/v1/members")["members"]].count("dead") == 1
        ),
        "a dead member",
        60.0,
    )
    vault.host(1).run("ip", "link", "set", "eth1", "up")


def rotate_with_damage(vault: Vault) -> None:
    """Delete the newer device, flush the rules and kill an agent while keys are replaced."""
    vault.host(2).run("sh", "-c", "overlayd encryption rotate >/dev/null 2>&1 &")
    wait_until(lambda: vault.status(1)["rotation"] is not None, "a rotation")
    vault.host(1).run(
        "sh", "-c", "nft flush ruleset; ip link del wg-ovl2; ip link del wg-ovl; true"
    )
    vault.host(3).end(signal.SIGKILL)
    vault.host(3).start()
    wait_until(vault.has_rotated, "the rotation", 120.0)


def hang(vault: Vault) -> None:
    """Stop wireguard-go, with its device and without: another takes its place within seconds."""
    host = vault.host(1)
    if not host.run("sh", "-c", "pidof wireguard-go; true"):
        pytest.skip("the kernel's own WireGuard has no process")
    for also in ("true", "ip link del wg-ovl"):
        before = host.run("pidof", "wireguard-go").split()
        host.run("sh", "-c", f"kill -STOP $(pidof wireguard-go); {also}")
        host.get("/v1/encryption")  # answered in time

        def is_replaced(known: list[str] = before) -> bool:
            found = host.run("sh", "-c", "pidof wireguard-go; true").split()
            return found not in ([], known) and vault.reaches(1, 2)

        wait_until(is_replaced, "another wireguard-go", 20.0)
    events = [each["text"] for each in host.get("/v1/events")["events"]]
    assert any("killed process" in text for text in events)


@pytest.mark.parametrize("fault", [change_address, cut_off, hang, narrow, rotate_with_damage])
def test_no_fault_sends_in_clear(five: Vault, fault: Callable[[Vault], None]) -> None:
    """With a default route of IPv6, by which packets would leave that have no other."""
    five.host(1).run("sh", "-c", "ip -6 route add default dev eth1 2>/dev/null; true")
    with nothing_in_clear(five, 1, 2):
        fault(five)


def test_a_damaged_switch_sends_nothing_late(five: Vault) -> None:
    """Rules flushed, devices deleted and an agent killed while a network in use is encrypted.

    Nothing is in clear from the moment on when the first host drops what is.
    """
    hosts = five.drivers[:3]
    hosts[0].post("/v1/networks", name="plain")
    for each in hosts:
        each.run("overlayd", "container", "add", f"p{each.number}", "--network", "plain")
    found = hosts[0].get("/v1/endpoints?network=plain")["endpoints"]
    ends = {int(each["name"][1:]): (each["name"], each["ips"][0]) for each in found}

    def is_over() -> bool:
        shown = [each.get("/v1/networks/plain")["encrypted"] for each in hosts]
        return all(shown) and not any(
            each.get("/v1/encryption")["switching"] for each in five.drivers
        )

    with capture(hosts[0], IN_CLEAR) as one, capture(hosts[1], IN_CLEAR) as two:
        floods = Floods(hosts, ends)
        hosts[1].run("sh", "-c", "overlayd encryption on plain >/dev/null 2>&1 &")
        for _ in range(3):
            hosts[0].run("sh", "-c", "nft flush ruleset; ip link del wg-ovl; true")
        hosts[2].end(signal.SIGKILL)
        hosts[2].start()
        wait_until(is_over, "the switch", 120.0)
        floods.wait_for_more()
        floods.lost()  # the deleted device loses some
        text = "frames in clear are dropped"
        events = [each for host in hosts for each in host.get("/v1/events")["events"]]
        dropping = min(each["time"] for each in events if each["text"] == text)
        heard = re.findall(r"(?m)^(\d+\.\d+) IP", one.read_text() + two.read_text())
        assert all(float(at) < dropping for at in heard)
    for each in hosts:
        each.run("overlayd", "container", "rm", f"p{each.number}")
    hosts[0].run("overlayd", "network", "rm", "plain")


def test_a_stream_to_a_restarted_host_resumes(five: Vault) -> None:
    """One way, so that nothing but the greeting of a new device begins a handshake."""
    host = five.host(1)
    arrivals = "ip netns exec c1 tcpdump -tt -l -n -i eth0 udp dst port 7000 >/run/arrivals 2>&1 &"
    host.run("sh", "-c", arrivals)

    def last() -> float:
        lines = host.run("sh", "-c", "tail -n 2 /run/arrivals").splitlines()
        return float(lines[0].split()[0]) if len(lines) == 2 and " IP " in lines[0] else 0.0

    kill = "kill -9 $(pidof wireguard-go) || ip link del wg-ovl; date +%s.%N"
    with five.flow(2, 1):
        wait_until(lambda: last() > 0, "packets")
        at = float(host.run("sh", "-c", kill))
        wait_until(lambda: last() > at + 2.0, "packets of two seconds later", 60.0)
    shown = host.run("sh", "-c", "killall tcpdump; cat /run/arrivals")
    stamps = [float(line.split()[0]) for line in shown.splitlines() if " IP " in line]
    gap = max(after - before for before, after in pairwise(stamps))
    assert 0.0 < gap < 5.0  # without a greeting it is 9 to 25 s


def test_a_banned_members_frames_stop_within_a_second(five: Vault) -> None:
    """Counted from the moment when the command returns."""
    flood = f"ip netns exec c5 ping -D -i0.02 -W1 {five.addresses[1]} >/run/banned 2>&1 &"
    five.host(5).run("sh", "-c", flood)
    wait_until(lambda: "bytes from" in five.host(5).run("sh", "-c", "cat /run/banned"), "answers")
    five.host(1).post("/v1/forget", node="vm5", ban=True)
    at = float(five.host(1).run("date", "+%s.%N"))
    wait_until(lambda: not five.reaches(5, 1, by_name=False), "no answer")
    shown = five.host(5).run("sh", "-c", "killall -INT ping; sleep 0.5; cat /run/banned")
    last = max(float(stamp) for stamp in re.findall(r"\[([\d.]+)\] \d+ bytes from", shown))
    assert last - at < 1.0


def test_a_copied_disk_costs_the_others_nothing(five: Vault, tmp_path: Path) -> None:
    """A host with the identity and key of another: pings between others pass, none in clear.

    Packets of the two go to whichever sent last, as the tunnels follow it; `status` names both.
    """
    source, target = five.host(3), five.host(4)
    target.end(signal.SIGTERM)
    target.run("sh", "-c", "overlayd reset --yes")
    copy = str(tmp_path / "disk.tar")
    source.run("tar", "-C", "/var/lib", "-cf", copy, "overlayd")
    with ExitStack() as stack:
        heard = [stack.enter_context(capture(five.host(n), IN_CLEAR)) for n in (1, 3)]
        pair = [five.host(1), five.host(2)]
        floods = Floods(pair, {n: (f"c{n}", five.addresses[n]) for n in (1, 2)})
        target.run("tar", "-C", "/var/lib", "-xf", copy)
        target.start()
        wait_until(
            lambda: "uses the identity of" in str(five.host(1).get("/v1/status")["health"]),
            "the clone is named",
            60.0,
        )
        floods.wait_for_more()
        target.end(signal.SIGKILL)
        assert floods.lost() == {1: 0, 2: 0}
        assert [each.read_text() for each in heard] == ["", ""]
