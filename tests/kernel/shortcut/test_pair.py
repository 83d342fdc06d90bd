"""Shortcuts as links of a sandbox: created, checked, repaired and removed with both ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Shortcut
from overlay.core.dataplane.state import SandboxState
from overlay.kernel import netns
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.kernel.shortcut.pair import host_name
from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns


@pytest.fixture
def host(world: World) -> Host:
    """Return a host whose sandbox has a shortcut."""
    made = world.host()
    assert converge(made, 1450) == []
    return made


def desired(host: Host, mtu: int) -> SandboxState:
    """Return the planned state."""
    planned = host.desired()
    return replace(planned, links={**planned.links, "native0": Shortcut("native0", mtu)})


def differences(host: Host, mtu: int) -> list[str]:
    """Return the operations of a further pass."""
    return [str(each) for each in diff(desired(host, mtu), host.sandbox.read(), prune=True)]


def converge(host: Host, mtu: int) -> list[str]:
    """Run one pass, then return what another would do."""
    operations = diff(desired(host, mtu), host.sandbox.read(), prune=True)
    with netns.inside(host.world.fd(host.name)):
        assert host.sandbox.apply(operations) == []
    return differences(host, mtu)


def end_of(host: Host) -> str:
    """Return the name of the host's end."""
    return host_name(host.sandbox.name, "native0")


def test_an_mtu_is_changed_at_both_ends(host: Host) -> None:
    """A pass changes the MTU of both ends, and a second one has nothing to do."""
    assert converge(host, 1400) == []
    shown = host.world.run(host.name, "ip", "link", "show", end_of(host))
    assert "mtu 1400" in shown
    assert "state UP" in shown


@pytest.mark.parametrize(
    ("inside", "sabotage"),
    [
        (True, ("ip", "link", "set", "native0", "down")),
        (True, ("ip", "link", "set", "native0", "master", "br0")),
        (True, ("ip", "link", "del", "native0")),
        (True, ("ip", "link", "set", "native0", "mtu", "1300")),
        (False, ("ip", "link", "set", "END", "down")),
        (False, ("ip", "link", "set", "END", "alias", "mine")),
        (False, ("ip", "link", "set", "END", "mtu", "1300")),
        (False, ("ip", "link", "del", "END")),
        (False, ("ip", "link", "set", "END", "netns", "AWAY")),
    ],
    ids=lambda value: "-".join(value[2:]) if isinstance(value, tuple) else "",
)
def test_an_altered_end_is_repaired(host: Host, inside: bool, sabotage: tuple[str, ...]) -> None:
    """Whatever is done to either end is a difference, and one pass undoes it."""
    away = host.world.namespace("away")
    words = [word.replace("END", end_of(host)).replace("AWAY", away) for word in sabotage]
    host.world.run(host.sandbox.name if inside else host.name, *words)

    assert differences(host, 1450) != []
    assert converge(host, 1450) == []


def test_a_pair_goes_with_its_sandbox(host: Host) -> None:
    """The host's end goes with the link, and with the sandbox."""
    with netns.inside(host.world.fd(host.name)):
        assert host.sandbox.apply(diff(host.desired(), host.sandbox.read(), prune=True)) == []
        assert end_of(host) not in host.world.run(host.name, "ip", "link", "show")
        assert converge(host, 1450) == []
        Sandbox.open(host.sandbox.name, create=False).destroy()
    assert end_of(host) not in host.world.run(host.name, "ip", "link", "show")


def test_an_end_without_its_other_is_replaced(host: Host, world: World) -> None:
    """A link of that name that a crash has left in the host's namespace is no obstacle."""
    host.world.run(host.sandbox.name, "ip", "link", "del", "native0")
    peer = ("type", "veth", "peer", "name", "left0")
    world.run(host.name, "ip", "link", "add", end_of(host), *peer)

    assert converge(host, 1450) == []


def test_names_are_unique_by_vni_and_node() -> None:
    """The name has 15 characters; without the usual name of a sandbox, its end."""
    assert host_name("ov-8f0001-abcdef", "native0") == "ovn8f0001abcdef"
    assert host_name("ov-8f0001-abcdef", "native1") == "ovn8f0002abcdef"
    assert host_name("a-strange-sandbox-name", "native0") == "ovnandbox-name0"
