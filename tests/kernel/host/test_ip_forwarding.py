"""The host's forwarding: enabled no more than needed, and fully restored."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.kernel import netns
from overlay.kernel.host import ip_forwarding
from overlay.kernel.host.sysctl_record import MEMORY_NAME, Links, SysctlRecord

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
        self.fd = world.fd(self.name)
        self.record = run_dir / MEMORY_NAME
        for name in ("eth1", "ovh1"):
            world.run(self.name, "ip", "link", "add", name, "type", "veth", "peer", f"x{name}")

    def enable(
        self,
        *,
        ipv6: bool = True,
        own: Collection[str] = frozenset({"ovh1"}),
        guarded: Collection[ForwardingInterface] = (),
    ) -> ip_forwarding.Forwarding:
        """Enable forwarding for the uplinks."""
        with netns.inside(self.fd):
            return ip_forwarding.enable_forwarding(self._run_dir, own, ipv6=ipv6, guarded=guarded)

    def restore(self, guarded: Collection[ForwardingInterface] = ()) -> list[str]:
        """Restore the sysctls."""
        with netns.inside(self.fd):
            return ip_forwarding.restore_sysctls(self._run_dir, guarded=guarded)

    def run(self, words: str) -> str:
        """Run a program."""
        return self._world.run(self.name, *words.split())

    def indexes(self) -> dict[str, int]:
        """Return the links' indexes."""
        return {each["ifname"]: each["ifindex"] for each in json.loads(self.run("ip -j link"))}

    def both(self, *names: str) -> set[ForwardingInterface]:
        """Return interfaces that forward both families."""
        indexes = self.indexes()
        return {ForwardingInterface(indexes[name], family) for name in names for family in (4, 6)}

    def is_forwarding(self, name: str) -> tuple[str, str]:
        """Return the switches of a link."""
        found = self.run(
            f"sysctl -n net.ipv4.conf.{name}.forwarding net.ipv6.conf.{name}.force_forwarding"
        ).split()
        return found[0], found[1]

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
    assert done.opened == place.both("eth1", "xeth1", "xovh1")
    assert place.enable() == done._replace(changed=[])
    assert len(place.restore()) == 6
    assert place.now()[:2] + place.now()[3:] == ["0", "0", "0", "0"]


def test_links_of_overlayd_are_no_others(place: Place, world: World) -> None:
    """Packets that enter by them may leave: an uplink's, the native path's and the gate's."""
    world.run(place.name, "ip", "link", "add", "ovh2", "type", "veth", "peer", "name", "ovn2")
    world.run(place.name, "ip", "link", "add", "ovg2", "type", "veth", "peer", "name", "ovgx")
    done = place.enable(own={"ovh1"})
    assert not any(name in each for name in ("ovn2", "ovh2", "ovg") for each in done.changed)
    opened = place.both("eth1", "xeth1", "xovh1")
    assert done.opened == opened
    assert place.enable(own={"ovh1", "ovh2"}).opened == opened


def test_without_ipv6_networks_ipv6_is_left_alone(place: Place) -> None:
    """Without IPv6 networks, no IPv6 sysctl changes."""
    assert {each.family for each in place.enable(ipv6=False).opened} == {4}
    assert place.now() == ["0", "1", "1", "0", "0"]


def test_a_router_stays_a_router(place: Place) -> None:
    """If forwarding is on for all, no sysctl is changed or restored."""
    place.set("ipv4.ip_forward", "1")
    place.set("ipv6.conf.all.forwarding", "1")

    assert place.enable() == (frozenset(), [], SysctlRecord())
    assert place.restore() == []
    assert place.now()[0] == place.now()[3] == "1"


def test_a_host_made_a_router_meanwhile_stays_one(place: Place) -> None:
    """If Docker later enables forwarding for all, nothing is closed."""
    place.enable(ipv6=False)
    place.set("ipv4.ip_forward", "1")

    assert place.enable(ipv6=False).opened == frozenset()
    assert place.restore() == []
    assert place.now()[:2] == ["1", "1"]


def test_a_renamed_interface_stays_guarded(place: Place) -> None:
    """Its switches go with it, and are switched off in the end; its old name is another's."""
    opened = place.enable().opened
    for words in ("name up0", "name eth1"):
        place.run(f"ip link set {'eth1' if words == 'name up0' else 'xeth1'} {words}")
        assert place.enable() == (opened, [], place.enable().recorded)
    assert "ipv4/conf/up0/forwarding" in place.restore()
    assert {place.is_forwarding(name) for name in ("up0", "eth1", "xovh1")} == {("0", "0")}


def test_an_interface_of_a_former_name_is_the_operators(place: Place) -> None:
    """What has gone took its switches along; what the operator switched on is not restored."""
    place.enable()
    place.run("ip link del eth1")
    place.run("ip link add eth1 type veth peer xeth1")
    place.set("ipv4.conf.eth1.forwarding", "1")
    place.set("ipv6.conf.eth1.force_forwarding", "1")

    assert place.enable().opened == place.both("xeth1", "xovh1")
    assert len(place.restore()) == 4
    assert place.is_forwarding("eth1") == ("1", "1")


def test_one_is_guarded_also_while_no_network_needs_it(place: Place) -> None:
    """The last IPv6 network is hidden, and another remains: the IPv6 switches stay on."""
    opened = place.enable().opened
    assert place.is_forwarding("eth1") == ("1", "1")
    assert place.enable(ipv6=False).opened == opened


def test_a_record_of_an_earlier_version_is_followed(place: Place) -> None:
    """It has no indexes: it is of the interfaces of these names, which may change later."""
    opened = place.enable().opened
    place.record.write_text(json.dumps(dict(place.enable().recorded.values)))
    assert place.enable().opened == opened
    place.run("ip link set eth1 name up0")
    assert place.enable().opened == opened
    assert len(place.restore()) == 6


def test_a_lost_record_is_that_of_the_table(place: Place) -> None:
    """What the table guards forwards because of overlayd, whatever its name is by now."""
    done = place.enable()
    place.record.unlink()
    place.run("ip link set eth1 name up0")
    assert place.enable(guarded=done.opened).opened == done.opened
    assert place.enable().opened == done.opened  # it is on disk again

    place.record.unlink()
    assert len(place.restore(done.opened)) == 6
    assert place.is_forwarding("up0") == ("0", "0")


def test_a_table_that_goes_leaves_no_open_interface(place: Place) -> None:
    """A router's interfaces are its own."""
    opened = place.enable().opened
    place.set("ipv6.conf.all.forwarding", "1")
    place.set("ipv6.conf.eth1.force_forwarding", "1")
    with netns.inside(place.fd):
        restored = ip_forwarding.restore_guarded(opened)
    names = ("eth1", "xeth1", "xovh1")
    assert restored == [f"ipv4/conf/{name}/forwarding" for name in names]
    assert place.is_forwarding("eth1") == ("0", "1")


OLD_LINKS = {"lo": 1, "eth1": 2, "eth2": 3, "ovh1": 4}


def old_links() -> Links:
    """Return the links of a host with such a kernel."""
    return Links(OLD_LINKS, is_whole=True)


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


def enable_old(
    root: Path, run_dir: Path, *, ipv6: bool = True, known: SysctlRecord | None = None
) -> ip_forwarding.Forwarding:
    """Enable forwarding on such a host."""
    return ip_forwarding.enable_forwarding(
        run_dir,
        {"ovh1"},
        ipv6=ipv6,
        root=root,
        known=known or SysctlRecord(),
        find_links=old_links,
    )


def test_an_ipv6_router_accepts_no_more_than_before(tmp_path: Path) -> None:
    """An IPv6 router still ignores router advertisements (accept_ra 1).

    This includes interfaces that appear later.
    """
    root = old_kernel(tmp_path)
    (root / "ipv6/conf/all/forwarding").write_text("1\n")
    done = ip_forwarding.enable_forwarding(
        tmp_path, {"ovh1"}, ipv6=True, root=root, find_links=old_links
    )

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
    done = ip_forwarding.enable_forwarding(
        tmp_path, {"ovh1"}, ipv6=True, root=root, find_links=old_links
    )

    assert [each.read_text() for each in switches] == ["1", "2"]
    assert (root / "ipv6/conf/eth2/accept_ra").read_text() == "0\n"
    assert done.opened == frozenset()
    assert (
        ip_forwarding.enable_forwarding(
            tmp_path, {"ovh1"}, ipv6=True, root=root, find_links=old_links
        ).changed
        == []
    )
    (root / "ipv6/conf/eth2/accept_ra").write_text("1\n")  # as of an interface that comes later
    assert "ipv6/conf/eth2/accept_ra" in ip_forwarding.missing_sysctls(
        tmp_path, {"ovh1"}, ipv6=True, root=root
    )
    (root / "ipv6/conf/eth2/accept_ra").write_text("0\n")
    assert len(ip_forwarding.restore_sysctls(tmp_path, root, find_links=old_links)) == 2
    assert [each.read_text() for each in switches] == ["0", "1"]


def test_the_changes_are_known_without_the_run_directory(tmp_path: Path) -> None:
    """Another program may empty it: what forwards because of overlayd is written there again."""
    root, run_dir = old_kernel(tmp_path), tmp_path / "run"
    run_dir.mkdir()
    for name in ("all", "eth1", "ovh1"):
        (root / f"ipv4/conf/{name}").mkdir(parents=True, exist_ok=True)
        (root / f"ipv4/conf/{name}/forwarding").write_text("0\n")
    done = ip_forwarding.enable_forwarding(
        run_dir, {"ovh1"}, ipv6=False, root=root, find_links=old_links
    )
    assert done.opened == {ForwardingInterface(OLD_LINKS["eth1"], 4)}

    record = run_dir / MEMORY_NAME
    record.unlink()
    again = enable_old(root, run_dir, ipv6=False, known=done.recorded)
    assert again == ip_forwarding.Forwarding(done.opened, [], done.recorded)
    assert record.exists()

    record.unlink()
    restored = ip_forwarding.restore_sysctls(
        run_dir, root, known=done.recorded, find_links=old_links
    )
    assert restored == ["ipv4/conf/eth1/forwarding"]
    assert (root / "ipv4/conf/eth1/forwarding").read_text().strip() == "0"
