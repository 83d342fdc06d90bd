"""Hosts whose containers are on an encrypted network, and what their underlay shows in clear."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from overlay.lab.driver import AgentDriver, differences, wait_until
from overlay.lab.fixtures import LabCluster
from overlay.lab.forged_frames import NamespaceRef
from overlay.lab.frames import packet_frame, udp, vxlan
from overlay.lab.host_process import environment
from overlay.model import parse_ip, parse_mac
from tests.e2e.ping_log import last_begun, lost_pings

IN_CLEAR = "udp port 4789 or net fd6f:766c::/32"
FLOOD_DELAY_MAX_S = 60.0  # wireguard-go queues 1024 packets, which a loaded machine sends late


class Vault(LabCluster):
    """Hosts with a container each on an encrypted network, and no other network."""

    def __init__(self, drivers: list[AgentDriver]) -> None:
        super().__init__(drivers)
        self.numbers = [each.number for each in drivers]
        drivers[0].post("/v1/networks", name="vault", encrypted=True)
        for each in drivers:
            name = f"c{each.number}"
            each.run("overlayd", "container", "add", name, "--network", "vault")
        endpoints = {e["name"]: e for e in drivers[0].get("/v1/endpoints")["endpoints"]}
        self.macs = {name: parse_mac(each["mac"]) for name, each in endpoints.items()}
        self.addresses = {n: endpoints[f"c{n}"]["ips"][0] for n in self.numbers}
        self.inner = {n: parse_ip(self.status(n)["address"]) for n in self.numbers}
        self.vni = int(drivers[0].get("/v1/networks/vault")["vni"])

    def reaches(self, source: int, target: int, *, by_name: bool = True, wait_s: int = 1) -> bool:
        """Return whether a container gets an answer from another; a name needs the agent."""
        to = f"c{target}" if by_name else self.addresses[target]
        ping = f"ip netns exec c{source} ping -c1 -W{wait_s} {to} >/dev/null && echo yes; true"
        return self.host(source).run("sh", "-c", ping) != ""

    def all_reach(self) -> bool:
        """Return whether every container has an answer from the next one."""
        following = [*self.numbers[1:], self.numbers[0]]
        return all(map(self.reaches, self.numbers, following))

    def has_rotated(self) -> bool:
        """Return whether no host has a second key or device."""
        return all(
            self.status(number)["rotation"] is None
            and self.host(number).run("ip", "-o", "link").count("wg-ovl") == 1
            for number in self.numbers
        )

    def status(self, number: int) -> dict[str, Any]:
        """Return what `overlayd encryption status` shows on a host."""
        return self.host(number).get("/v1/encryption")

    def frame(self, source: int, target: int, label: str) -> bytes:
        """Return a frame from one host's container to another's."""
        ends = [parse_ip(self.addresses[number]) for number in (source, target)]
        packet = udp(ends[0], ends[1], (5000, 5001), f"<{label}>".encode())
        return packet_frame(self.macs[f"c{target}"], self.macs[f"c{source}"], packet)

    def send_last(self, source: int, target: int) -> None:
        """Send a legitimate frame, from container to container."""
        sender = NamespaceRef(self.host(source).host, f"c{source}")
        sender.send_frames(self.frame(source, target, "fence"))

    def underlay_mac(self, number: int) -> bytes:
        """Return the MAC of a host's interface on the underlay."""
        (link,) = json.loads(self.host(number).run("ip", "-j", "link", "show", "eth1"))
        return parse_mac(link["address"])

    def inject(self, source: int, target: int, label: str) -> None:
        """Send a frame in clear from one member to another's inner address, over the underlay."""
        inner = [self.inner[number] for number in (source, target)]
        body = vxlan(self.vni, self.frame(source, target, label))
        packet = udp(inner[0], inner[1], (40000, 4789), body)
        frame = packet_frame(self.underlay_mac(target), self.underlay_mac(source), packet)
        NamespaceRef(self.host(source).host).send_frames(frame, interface="eth1")


class Floods:
    """Pings from each host's container to the next one's, which must all be answered."""

    def __init__(
        self,
        drivers: list[AgentDriver],
        containers: dict[int, tuple[str, str]],
        interval_s: float = 0.01,
    ) -> None:
        self._drivers = drivers
        self._under_way_max = int(FLOOD_DELAY_MAX_S / interval_s)
        following = [*drivers[1:], drivers[0]]
        for driver, target in zip(drivers, following, strict=True):
            name, ip = containers[driver.number][0], containers[target.number][1]
            flood = f"ping -D -i{interval_s} -W5 {ip} >{self._file(driver)} 2>&1 &"
            driver.run("sh", "-c", f"ip netns exec {name} {flood}")

    @staticmethod
    def _file(driver: AgentDriver) -> str:
        return f"/run/flood{driver.number}"

    def wait_for_more(self) -> None:
        """Wait until pings that are sent from now on are answered on every host."""
        begun = time.time()
        for driver in self._drivers:
            is_answered = partial(self._is_answered, driver, begun)
            wait_until(is_answered, f"an answer on {driver.host.name}", FLOOD_DELAY_MAX_S)

    def _is_answered(self, driver: AgentDriver, begun: float) -> bool:
        return last_begun(driver.run("tail", "-n20", self._file(driver))) > begun

    def lost(self) -> dict[int, int]:
        """End the pings, once all flow; return how many of each host had no answer."""
        self.wait_for_more()
        found = {}
        for driver in self._drivers:
            end = "kill -INT $(pidof ping); while pidof ping >/dev/null; do :; done; cat "
            shown = driver.run("sh", "-c", end + self._file(driver))
            found[driver.number] = len(lost_pings(shown, self._under_way_max))
        return found


@contextmanager
def capture(driver: AgentDriver, expression: str) -> Iterator[Path]:
    """Run tcpdump on a host's underlay during a block; the file is its output."""
    inside = ["nsenter", "--target", str(driver.host.pid), "--net", "tcpdump", "-Z", "root"]
    with tempfile.NamedTemporaryFile("w") as output:
        process = subprocess.Popen(
            [*inside, "--immediate-mode", "-l", "-n", "-tt", "-i", "eth1", expression],
            stdout=output, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        assert process.stderr is not None
        assert any("listening on" in line for line in process.stderr)
        try:
            yield Path(output.name)
        finally:
            process.terminate()
            process.communicate(timeout=60)


@contextmanager
def nothing_in_clear(vault: Vault, *numbers: int) -> Iterator[None]:
    """Send packets between all containers during a block, and none of them in clear."""
    with ExitStack() as stack:
        heard = [stack.enter_context(capture(vault.host(n), IN_CLEAR)) for n in numbers]
        for number, following in zip(vault.numbers, [*vault.numbers[1:], 1], strict=True):
            flood = f"ip netns exec c{number} ping -i0.02 -W1 {vault.addresses[following]}"
            vault.host(number).run("sh", "-c", f"{flood} >/dev/null 2>&1 &")
        yield
        wait_until(vault.all_reach, "all containers", 60.0)
        wait_until(lambda: not any(map(differences, vault.drivers)), "the kernel", 60.0)
        for number in vault.numbers:
            vault.host(number).run("sh", "-c", "killall ping; true")
        assert [each.read_text() for each in heard] == [""] * len(heard)


def change_address(vault: Vault) -> None:
    """Give a host another address: the tunnels of the others follow its card."""
    host = vault.host(1)
    host.run("ip", "address", "add", "192.168.56.111/24", "dev", "eth1")
    host.run("ip", "address", "del", "192.168.56.11/24", "dev", "eth1")
    host.run("sh", "-c", "ip address add 192.168.56.111/24 dev eth1 2>/dev/null || true")
    wait_until(
        lambda: host.get("/v1/status")["node"]["address"] == "192.168.56.111", "the new address"
    )


def narrow(vault: Vault) -> None:
    """Let the underlay carry 1280 bytes: the MTU of containers follows, then back."""
    host = vault.host(1)

    def follows(expected: int) -> bool:
        return bool(host.get("/v1/networks/vault")["mtu"] == expected)

    for mtu, expected in ((1280, 1150), (1500, 1370)):
        host.run("ip", "link", "set", "eth1", "mtu", str(mtu))
        wait_until(partial(follows, expected), f"MTU {mtu}", 60.0)
