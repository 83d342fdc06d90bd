"""FRR's supervisor as the unit of systemd that it is on a real host: scripts/booted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from overlay.kernel.evpn.process import UNIT
from tests.e2e.typed import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.booted]

UNITS = Path("/run/systemd/system")
CLI = f"{sys.executable} -m overlay.cli.main"
REFLECTOR = """\
frr defaults datacenter
router bgp 65000
 bgp router-id 192.168.77.2
 no bgp default ipv4-unicast
 neighbor 192.168.77.1 remote-as 65000
 neighbor 192.168.77.1 timers connect 1
 address-family l2vpn evpn
  neighbor 192.168.77.1 activate
  neighbor 192.168.77.1 route-reflector-client
 exit-address-family
"""


def ok(*words: str) -> str:
    """Run a command that must succeed; return its stdout."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}{journal()}"
    return done.stdout.strip()


def journal() -> str:
    """Return the last lines of the machine's journal."""
    words = ("journalctl", "--no-pager", "--lines", "40")
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def overlayd(*words: str) -> str:
    """Run overlayd on this machine."""
    return ok(*CLI.split(), "--timeout", "60", *words)


def unit(name: str, prop: str) -> str:
    """Return a property of a unit."""
    return ok("systemctl", "show", "--value", "--property", prop, name)


@pytest.fixture(scope="module")
def booted() -> Iterator[None]:
    """Make this machine a host whose agent runs as the package's unit, beside a reflector."""
    assert UNITS.is_dir(), "systemd has not booted this machine: scripts/booted"
    ok("systemctl", "start", "dbus.service")
    text = (ROOT / "deploy/overlayd.service").read_text()
    text = text.replace("ExecStart=/usr/bin/overlayd agent", f"ExecStart={CLI} agent")
    (UNITS / "overlayd.service").write_text(
        text.replace("[Service]", f"[Service]\nEnvironment=PYTHONPATH={ROOT}")
    )
    ok(
        "sh",
        "-c",
        f"""set -e
mkdir -p /run/frr /run/netns /etc/overlayd
ip netns add rr; ip link add under0 type veth peer name eth0 netns rr
ip addr add 192.168.77.1/24 dev under0; ip link set under0 up
ip -n rr addr add 192.168.77.2/24 dev eth0; ip -n rr link set eth0 up; ip -n rr link set lo up
cat > /run/frr/bgpd.conf <<END
{REFLECTOR}END
chown -R frr:frr /run/frr
for name in zebra:/dev/null bgpd:/run/frr/bgpd.conf; do
  ip netns exec rr /usr/lib/frr/${{name%:*}} -d -f ${{name#*:}} -A 127.0.0.1 -P 0
done
systemctl daemon-reload
systemctl start overlayd""",
    )
    overlayd("join", "--underlay", "192.168.77.1")
    overlayd("network", "create", "wide", "--evpn", "--vni", "4100")
    overlayd("container", "add", "c1", "--network", "wide")
    overlayd("evpn", "enable", "--asn", "65000", "--neighbor", "192.168.77.2")
    yield
    overlayd("reset", "--yes")


@pytest.mark.usefixtures("booted")
def test_frr_is_watched_by_a_unit(eventually: Callable[..., None]) -> None:
    """It outlives the agent, comes back when it is killed, and ends with EVPN."""
    assert unit(UNIT, "ActiveState") == "active"
    first = unit(UNIT, "MainPID")
    frr = {name: ok("pgrep", "-f", f"frr/{name} -d -N") for name in ("zebra", "bgpd")}
    ok("systemctl", "restart", "overlayd")
    assert unit(UNIT, "MainPID") == first
    assert {name: ok("pgrep", "-f", f"frr/{name} -d -N") for name in frr} == frr

    ok("kill", "-9", first)
    eventually(lambda: unit(UNIT, "MainPID") not in ("0", first), "started again")
    eventually(lambda: "192.168.77.2 up" in overlayd("evpn", "status"), "the session is up")
    ok("systemctl", "stop", UNIT)
    eventually(lambda: unit(UNIT, "ActiveState") == "active", "the agent has it started")

    overlayd("evpn", "disable")
    eventually(lambda: unit(UNIT, "ActiveState") == "inactive", "it ends")
    assert subprocess.run(["pgrep", "-f", "frr/bgpd -d -N"], check=False).returncode == 1
