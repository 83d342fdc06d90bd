"""Encrypted networks by the kernel's WireGuard, which slim kernels lack.

Run by `make vm-test` in a machine with Debian's kernel; elsewhere each test is skipped for the
feature that is really missing. That machine is emulated, so every command may give up in it where
it would only wait elsewhere: it is repeated, and what it is for is waited for.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.errors import OverlayError
from overlay.lab.driver import AgentDriver, Json, differences, wait_until
from overlay.lab.fixtures import LabCluster, lab_cluster
from tests.e2e.test_kernels import lacking
from tests.e2e.vault import IN_CLEAR, Floods, capture

pytestmark = [
    pytest.mark.netns,
    pytest.mark.e2e,
    pytest.mark.vm,
    pytest.mark.timeout(1500),
]
PATIENCE_S = 300.0
INTERVAL_S = 0.05  # between pings: an emulated machine drops what comes faster


def posted(driver: AgentDriver, path: str, **body: object) -> Json:
    """Send a request until the agent has done it; return the response."""
    found: list[Json] = []

    def is_done() -> bool:
        try:
            found.append(driver.post(path, **body))
        except (OverlayError, OSError):
            return False
        return True

    wait_until(is_done, f"{driver.host.name}: {path}", PATIENCE_S)
    return found[0]


class KernelPair(LabCluster):
    """Two hosts with a container each on an encrypted network, v1 and v2."""

    def populate(self) -> None:
        """Join the hosts, create network vault, and attach the containers."""
        one, two = self.drivers
        for each in self.drivers:
            each.start()
        posted(one, "/v1/join")
        token = one.get("/v1/token")["token"]
        posted(two, "/v1/join", peers=[one.address], token=token)
        posted(one, "/v1/networks", name="vault", encrypted=True)
        for each in self.drivers:
            each.run("ip", "netns", "add", f"v{each.number}")
            asked = {"target": f"netns:v{each.number}", "networks": ["vault"]}
            found = posted(each, "/v1/endpoints", **asked)["endpoints"][0]
            self.addresses[each.number] = found["ip"]

    def passes(self) -> bool:
        """Return whether a ping of full size is answered."""
        ping = f"ip netns exec v1 ping -c1 -W5 -Mdo -s1342 {self.addresses[2]}"
        return self.host(1).run("sh", "-c", f"{ping} >/dev/null && echo yes; true") != ""

    def require_passing(self, awaited: str) -> None:
        """Wait until a ping of full size is answered, and the kernels are as desired."""
        wait_until(self.passes, f"v2 answers v1: {awaited}", PATIENCE_S)
        wait_until(
            lambda: not any(map(differences, self.drivers)),
            f"no differences: {awaited}",
            PATIENCE_S,
        )

    def flood(self) -> Floods:
        """Begin to ping between the containers, both ways."""
        containers = {n: (f"v{n}", ip) for n, ip in self.addresses.items()}
        return Floods(self.drivers, containers, INTERVAL_S)

    def switch(self, number: int, word: str) -> None:
        """Have vault encrypted or not, and wait until it is so everywhere."""
        self.host(number).run("sh", "-c", f"overlayd encryption {word} vault; true")

        def is_there() -> bool:
            return all(
                each.get("/v1/networks/vault")["encrypted"] is (word == "on")
                and not each.get("/v1/encryption")["switching"]
                for each in self.drivers
            )

        wait_until(is_there, f"encryption {word}", PATIENCE_S)


@pytest.fixture(scope="module")
def pair() -> Iterator[KernelPair]:
    """Return two hosts that use the kernel's WireGuard."""
    with lab_cluster(2, populated=False) as made:
        try:
            made.drivers[0].run("ip", "link", "add", "wg0", "type", "wireguard")
        except OverlayError as error:
            lacking(f"WireGuard: {error.why}")
        made.drivers[0].run("ip", "link", "del", "wg0")
        kernel_pair = KernelPair(made.drivers)
        kernel_pair.populate()
        yield kernel_pair


def test_the_kernels_wireguard_carries_encrypted_networks(pair: KernelPair) -> None:
    """Full-size packets pass, also when the device was deleted, and none is in clear."""
    one = pair.host(1)
    with capture(pair.host(2), IN_CLEAR) as heard:
        pair.require_passing("first")
        shown = one.get("/v1/encryption")
        assert shown["backend"] == "kernel"
        assert [peer["configured"] for peer in shown["peers"]] == [True]
        assert shown["peers"][0]["last_handshake_s"] is not None
        for damage in ("ip link del wg-ovl", "nft flush ruleset", "ip link set wg-ovl down"):
            one.run("sh", "-c", damage)
            pair.require_passing(damage)
        assert heard.read_text() == ""


def test_a_switch_by_the_kernels_wireguard_loses_nothing(pair: KernelPair) -> None:
    """Back and forth under pings; none is in clear from the last step on."""
    pair.require_passing("before")
    with capture(pair.host(2), IN_CLEAR) as heard:
        floods = pair.flood()
        floods.wait_for_more()
        pair.switch(1, "off")
        floods.wait_for_more()
        pair.switch(2, "on")
        text = "frames in clear are dropped"
        events = [each for driver in pair.drivers for each in driver.get("/v1/events")["events"]]
        dropping = min(each["time"] for each in events if each["text"] == text)
        floods.wait_for_more()
        stamps = [float(at) for at in re.findall(r"(?m)^(\d+\.\d+) IP", heard.read_text())]
        assert stamps
        assert max(stamps) < dropping
        assert floods.lost() == {1: 0, 2: 0}
    pair.require_passing("after")


def test_the_kernels_wireguard_and_the_program_mix(pair: KernelPair) -> None:
    """One host changes to wireguard-go, and keys are replaced by both under pings."""
    one, two = pair.drivers
    two.end(signal.SIGTERM)
    line = """printf 'wireguard = "wireguard-go"\\n' >/etc/overlayd/overlayd.toml"""
    two.run("sh", "-c", f"mkdir -p /etc/overlayd; {line}; ip link del wg-ovl")
    two.start()
    pair.require_passing("by wireguard-go")
    backends = [each.get("/v1/encryption")["backend"] for each in pair.drivers]
    assert backends == ["kernel", "wireguard-go"]
    before = one.get("/v1/encryption")["key_epoch"]
    floods = pair.flood()
    floods.wait_for_more()
    one.run("sh", "-c", "overlayd encryption rotate; true")

    def has_rotated() -> bool:
        shown = [each.get("/v1/encryption") for each in pair.drivers]
        return shown[0]["key_epoch"] > before and not any(each["rotation"] for each in shown)

    wait_until(has_rotated, "new keys", PATIENCE_S)
    floods.wait_for_more()
    assert floods.lost() == {1: 0, 2: 0}
    assert one.get("/v1/encryption")["device"] == "wg-ovl2"


def test_wireguard_beside_dockers_ipsec() -> None:
    """The ratio of their throughputs, as `scripts/bench_encryption.py` prints it."""
    root = Path(__file__).parent.parent.parent
    script = str(root / "scripts" / "bench_encryption.py")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, script, "--rounds", "3", "--seconds", "5"],
        capture_output=True, text=True, check=False, timeout=900,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    print(done.stdout)  # noqa: T201 - the figures, for docs/benchmarks
    if "(kernel)" not in done.stdout:
        lacking(f"WireGuard: {done.stderr}")
    if "ESP" not in done.stdout:
        lacking("ESP")
    assert done.returncode == 0, done.stderr
    assert "1,000 peers: a check" in done.stdout
