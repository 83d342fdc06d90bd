"""The sender follows changes of address, interface and routes as the VXLAN device does.

No agent follows the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from overlay.model import Ip, ip_text
from tests.kernel.conftest import Capture, World
from tests.kernel.native.conftest import Native, start_sending

pytestmark = [pytest.mark.netns, pytest.mark.kernels]
OWN, NEW, OTHER = "192.168.56.11", "192.168.56.77", "192.168.56.12"
_PINGS = 5


class Change(NamedTuple):
    """A change of a host and its undoing, as ip commands; and whether packets leave in between."""

    what: str
    do: tuple[str, ...]
    undo: tuple[str, ...]
    leaves: bool = True


GONE, BACK = f"address del {OWN}/24 dev eth1", f"address add {OWN}/24 dev eth1"
CHANGES = (
    Change(
        "the address is another host's now",
        (GONE, f"address add {NEW}/24 dev eth1"),
        (f"address del {NEW}/24 dev eth1", BACK),
        leaves=False,
    ),
    Change(
        "it is on the loopback",
        (GONE, f"address add {NEW}/24 dev eth1", f"address add {OWN}/32 dev lo"),
        (f"address del {OWN}/32 dev lo", f"address del {NEW}/24 dev eth1", BACK),
    ),
    Change(
        "it is on another interface",
        (GONE, f"address add {OWN}/24 dev eth2"),
        (f"address del {OWN}/24 dev eth2", BACK),
    ),
    Change(
        "the interface has another name",
        ("link set eth1 down", "link set eth1 name up0", "link set up0 up"),
        ("link set up0 down", "link set up0 name eth1", "link set eth1 up"),
    ),
    Change(
        "the route prefers another source",
        (f"address add {NEW}/24 dev eth1", f"route add {OTHER} dev eth1 src {NEW}"),
        (f"address del {NEW}/24 dev eth1",),  # and its route
    ),
    Change(
        "a rule prohibits the destination",
        (f"rule add to {OTHER} prohibit",),
        (f"rule del to {OTHER} prohibit",),
        leaves=False,
    ),
    Change("the neighbor is forgotten", (f"neighbor replace {OTHER} dev eth1 nud failed",), ()),
)


@pytest.mark.parametrize("path", ["native", "device"])
def test_changes_count_at_once(
    path: str, pair: tuple[Native, Native], world: World, capture: Callable[[str, str], Capture]
) -> None:
    """A packet leaves from an address of this host, by the ways that there are, or not at all."""
    one, two = pair
    if path == "native":
        start_sending(pair)
    world.run(one.host.name, "ip", "link", "add", "eth2", "type", "veth", "peer", "eth2",
              "netns", two.host.name)  # fmt: skip
    for native in pair:
        world.run(native.host.name, "ip", "link", "set", "eth2", "up")
    seen = [capture(two.host.name, link) for link in ("eth1", "eth2")]

    def pings(count: int) -> int:
        return world.pings(one.container, "10.32.0.3", "-W", "0.3", count=count)

    for change in CHANGES:
        world.wait_until(lambda: pings(1) == 1, f"a packet before: {change.what}")
        by_device = one.sent("vxlan0")
        apply(world, one, change.do)
        if change.leaves:
            world.wait_until(lambda: pings(1) == 1, f"a packet while {change.what}")
        sources_of(seen)
        assert pings(_PINGS) == (_PINGS if change.leaves else 0), change.what
        assert sources_of(seen) == ({OWN} if change.leaves else set()), change.what
        if path == "native":
            assert one.sent("vxlan0") - by_device <= 2, change.what  # ARP
        apply(world, one, change.undo)


def apply(world: World, native: Native, commands: Iterable[str]) -> None:
    """Run commands of ip on a host."""
    for command in commands:
        world.run(native.host.name, "ip", *command.split())


def sources_of(captures: Iterable[Capture]) -> set[str]:
    """Return from which addresses VXLAN packets to the other host came since the last call."""
    frames = [frame for each in captures for frame in each.frames()]
    vxlan = [each for each in frames if each[12:14] == b"\x08\x00" and each[36:38] == b"\x12\xb5"]
    return {ip_text(Ip(each[26:30])) for each in vxlan} - {OTHER}
