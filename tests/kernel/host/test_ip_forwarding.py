"""The host's forwarding: enabled no more than needed, and fully restored."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.kernel import netns
from overlay.kernel.host import ip_forwarding

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
SYSCTLS = (
    "ipv4.conf.all.forwarding", "ipv4.conf.eth1.forwarding", "ipv4.conf.ovh1.forwarding",
    "ipv6.conf.all.forwarding", "ipv6.conf.eth1.force_forwarding",
)  # fmt: skip


class Place:
    """A host with an underlay interface and an uplink."""

    def __init__(self, world: World, run_dir: Path) -> None:
        self._world = world
        self._run_dir = run_dir
        self.name = world.namespace("host")
        self._fd = world.fd(self.name)
        for name in ("eth1", "ovh1"):
            world.run(self.name, "ip", "link", "add", name, "type", "veth", "peer", f"x{name}")

    def enable(
        self, *, ipv6: bool = True, own: Collection[str] = frozenset({"ovh1"})
    ) -> ip_forwarding.Forwarding:
        """Enable forwarding for the uplinks."""
        with netns.inside(self._fd):
            return ip_forwarding.enable_forwarding(self._run_dir, own, ipv6=ipv6)

    def restore(self) -> list[str]:
        """Restore the sysctls."""
        with netns.inside(self._fd):
            return ip_forwarding.restore_sysctls(self._run_dir)

    def set(self, name: str, value: str) -> None:
        """Set a sysctl as another program."""
        self._world.run(self.name, "sysctl", "-qw", f"net.{name}={value}")

    def now(self) -> list[str]:
        """Return the sysctls' values."""
        names = [f"net.{name}" for name in SYSCTLS]
        return self._world.run(self.name, "sysctl", "-n", *names).split()


@pytest.fixture
def place(world: World, tmp_path: Path) -> Place:
    """Return a host that is not a router."""
    made = Place(world, tmp_path)
    made.set("ipv4.ip_forward", "0")
    return made


def test_single_interfaces_are_switched_on_and_off_again(place: Place) -> None:
    """The switches for all stay off; a second call changes nothing.

    Old values are restored.
    """
    before = place.now()
    done = place.enable()

    assert before == ["0"] * 5
    assert place.now() == ["0", "1", "1", "0", "1"]
    names = ("eth1", "xeth1", "xovh1")
    assert done.opened == {ForwardingInterface(name, family) for name in names for family in (4, 6)}
    assert place.enable() == done._replace(changed=[])
    assert len(place.restore()) == 6
    assert place.now()[:2] + place.now()[3:] == ["0", "0", "0", "0"]


def test_links_of_overlayd_are_no_others(place: Place, world: World) -> None:
    """Packets that enter by them may leave: an uplink's, the native path's and the gate's."""
    world.run(place.name, "ip", "link", "add", "ovh2", "type", "veth", "peer", "name", "ovn2")
    world.run(place.name, "ip", "link", "add", "ovg2", "type", "veth", "peer", "name", "ovgx")
    done = place.enable(own={"ovh1"})
    assert not any(name in each for name in ("ovn2", "ovh2", "ovg") for each in done.changed)
    assert {each.interface for each in done.opened} == {"eth1", "xeth1", "xovh1"}
    assert "ovh2" not in {each.interface for each in place.enable(own={"ovh1", "ovh2"}).opened}


def test_without_ipv6_networks_ipv6_is_left_alone(place: Place) -> None:
    """Without IPv6 networks, no IPv6 sysctl changes."""
    assert {each.family for each in place.enable(ipv6=False).opened} == {4}
    assert place.now() == ["0", "1", "1", "0", "0"]


def test_a_router_stays_a_router(place: Place) -> None:
    """If forwarding is on for all, no sysctl is changed or restored."""
    place.set("ipv4.ip_forward", "1")
    place.set("ipv6.conf.all.forwarding", "1")

    assert place.enable() == (frozenset(), [], {})
    assert place.restore() == []
    assert place.now()[0] == place.now()[3] == "1"


def test_a_host_made_a_router_meanwhile_stays_one(place: Place) -> None:
    """If Docker later enables forwarding for all, nothing is closed."""
    place.enable(ipv6=False)
    place.set("ipv4.ip_forward", "1")

    assert place.enable(ipv6=False).opened == frozenset()
    assert place.restore() == []
    assert place.now()[:2] == ["1", "1"]


def old_kernel(tmp_path: Path) -> Path:
    """Return the sysctls of a kernel before 6.17.

    The underlay interface accepts router advertisements.
    """
    root = tmp_path / "net"
    for name, more in {
        "ipv4/conf/all": {"forwarding": "1"}, "ipv4/conf/eth1": {"forwarding": "1"},
        "ipv6/conf/all": {"forwarding": "0", "accept_ra": "1"},
        "ipv6/conf/eth1": {"forwarding": "0", "accept_ra": "1"},
        "ipv6/conf/eth2": {"forwarding": "0", "accept_ra": "0"},
        "ipv6/conf/ovh1": {"forwarding": "0", "accept_ra": "1"},
    }.items():  # fmt: skip
        folder = root / name
        folder.mkdir(parents=True)
        for file, value in more.items():
            (folder / file).write_text(f"{value}\n")
    return root


def test_an_ipv6_router_accepts_no_more_than_before(tmp_path: Path) -> None:
    """An IPv6 router still ignores router advertisements (accept_ra 1).

    This includes interfaces that appear later.
    """
    root = old_kernel(tmp_path)
    (root / "ipv6/conf/all/forwarding").write_text("1\n")
    done = ip_forwarding.enable_forwarding(tmp_path, {"ovh1"}, ipv6=True, root=root)

    assert (root / "ipv6/conf/eth1/accept_ra").read_text() == "1\n"
    assert done.changed == []
    assert ip_forwarding.missing_sysctls(tmp_path, {"ovh1"}, ipv6=True, root=root) == [
        "ipv6/conf/ovh1/accept_ra"
    ]


def test_an_old_kernel_forwards_ipv6_as_a_whole(tmp_path: Path) -> None:
    """The switch for all is set, and restored later.

    The underlay still accepts router advertisements. No interface counts as opened, as the switch
    is for all.
    """
    root = old_kernel(tmp_path)
    switches = (root / "ipv6/conf/all/forwarding", root / "ipv6/conf/eth1/accept_ra")
    done = ip_forwarding.enable_forwarding(tmp_path, {"ovh1"}, ipv6=True, root=root)

    assert [each.read_text() for each in switches] == ["1", "2"]
    assert (root / "ipv6/conf/eth2/accept_ra").read_text() == "0\n"
    assert done.opened == frozenset()
    assert ip_forwarding.enable_forwarding(tmp_path, {"ovh1"}, ipv6=True, root=root).changed == []
    (root / "ipv6/conf/eth2/accept_ra").write_text("1\n")  # as of an interface that comes later
    assert "ipv6/conf/eth2/accept_ra" in ip_forwarding.missing_sysctls(
        tmp_path, {"ovh1"}, ipv6=True, root=root
    )
    (root / "ipv6/conf/eth2/accept_ra").write_text("0\n")
    assert len(ip_forwarding.restore_sysctls(tmp_path, root)) == 2
    assert [each.read_text() for each in switches] == ["0", "1"]


def test_the_changes_are_known_without_the_run_directory(tmp_path: Path) -> None:
    """Another program may empty it: what forwards because of overlayd is written there again."""
    root, run_dir = old_kernel(tmp_path), tmp_path / "run"
    run_dir.mkdir()
    for name in ("all", "eth1", "ovh1"):
        (root / f"ipv4/conf/{name}").mkdir(parents=True, exist_ok=True)
        (root / f"ipv4/conf/{name}/forwarding").write_text("0\n")
    done = ip_forwarding.enable_forwarding(run_dir, {"ovh1"}, ipv6=False, root=root)
    assert {each.interface for each in done.opened} == {"eth1"}

    record = run_dir / ip_forwarding.MEMORY_NAME
    record.unlink()
    again = ip_forwarding.enable_forwarding(
        run_dir, {"ovh1"}, ipv6=False, root=root, known=done.recorded
    )
    assert again == ip_forwarding.Forwarding(done.opened, [], done.recorded)
    assert record.exists()

    record.unlink()
    restored = ip_forwarding.restore_sysctls(run_dir, root, known=done.recorded)
    assert restored == ["ipv4/conf/eth1/forwarding"]
    assert (root / "ipv4/conf/eth1/forwarding").read_text().strip() == "0"
