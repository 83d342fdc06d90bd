"""Programs at tc's hooks: which hooks come and go with them, and what of others stays."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from overlay.kernel import netns
from overlay.kernel.bpf import numbers, syscall, tc_filters
from overlay.kernel.bpf.assembler import R0, Assembler
from overlay.kernel.bpf.hooks import clsact, interface_hooks, tcx
from overlay.kernel.bpf.hooks.clsact import ClsactHooks
from overlay.kernel.bpf.hooks.owner import EGRESS, GATE, INGRESS, NATIVE, HookOwner
from overlay.kernel.bpf.hooks.tcx import TcxHooks
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId
from tests.kernel.conftest import World

pytestmark = [pytest.mark.netns, pytest.mark.kernels]
ONE, OTHER = NodeId(bytes(16)), NodeId(bytes(range(16)))
BOTH = (INGRESS, EGRESS)


@dataclass
class Place:
    """An interface in a namespace, and a program to run there."""

    world: World
    name: str
    index: int
    program: int
    socket: NetlinkSocket

    def hooks(self, use: object = GATE, node_id: NodeId = ONE) -> ClsactHooks:
        """Return an owner's hooks, as its agent has them."""
        return ClsactHooks(self.socket, HookOwner(use, node_id))  # type: ignore[arg-type]

    def tc(self, *command: str) -> str:
        """Run the command tc there."""
        return self.world.run(self.name, "tc", *command)

    def has_hooks(self, kind: str = "clsact") -> bool:
        """Return whether the interface has hooks."""
        return f"qdisc {kind}" in self.tc("qdisc", "show", "dev", "d0")

    def names(self, where: int = INGRESS) -> list[str]:
        """Return the names of overlayd's filters."""
        return [each.name for each in clsact.filters_of(self.socket, self.index, where)]

    def put_other(self, where: int = INGRESS) -> None:
        """Add another program's filter."""
        request = tc_filters.put_filter(
            self.index, self.program, "other", leaving=where == EGRESS, priority=7
        )
        self.socket.request(request)

    def others(self, where: int = INGRESS) -> str:
        """Return how tc(8) shows other programs' filters."""
        hook = "ingress" if where == INGRESS else "egress"
        return self.tc("filter", "show", "dev", "d0", hook)


@pytest.fixture
def place(world: World) -> Iterator[Place]:
    """Return an interface without hooks."""
    name = world.namespace("n")
    world.run(name, "ip", "link", "add", "d0", "up", "type", "veth", "peer", "d1")
    program = Assembler()
    program.set(R0, numbers.PASS)
    program.exit()
    descriptor = syscall.load(program.code(), "passing")
    with netns.inside(world.fd(name)), NetlinkSocket() as inside:
        yield Place(world, name, socket.if_nametoindex("d0"), descriptor, inside)
    os.close(descriptor)


def test_hooks_come_with_the_first_and_go_with_the_last(place: Place) -> None:
    """Of all uses and nodes, in whichever order they go."""
    owners = [place.hooks(), place.hooks(NATIVE), place.hooks(node_id=OTHER)]
    for hooks in owners:
        for where in BOTH:
            hooks.put(place.index, place.program, where)
            assert len(hooks.at([(place.index, where)])[place.index, where]) == 1
            assert [index for index, _ in hooks.read(where)] == [place.index]
    for hooks in owners:
        assert hooks.has_others() is (hooks is not owners[1])
    for hooks in owners:
        for where in BOTH:
            assert place.has_hooks()
            hooks.delete(place.index, where)
            assert hooks.at([(place.index, where)]) == {(place.index, where): []}
    assert not place.has_hooks()


def test_hooks_of_others_stay(place: Place) -> None:
    """Those that were there before, also without a filter."""
    place.tc("qdisc", "add", "dev", "d0", "clsact")
    hooks = place.hooks()
    hooks.put(place.index, place.program, EGRESS)
    hooks.delete(place.index, EGRESS)
    assert place.has_hooks()


@pytest.mark.parametrize("where", BOTH)
def test_filters_of_others_stay(place: Place, where: int) -> None:
    """And the hooks that overlayd added, as long as they need them."""
    hooks = place.hooks()
    hooks.put(place.index, place.program, INGRESS)
    place.put_other(where)
    hooks.delete(place.index, INGRESS)
    assert "other" in place.others(where)
    hooks.put(place.index, place.program, INGRESS)
    with NetlinkSocket() as inside:
        assert interface_hooks.remove_all(inside, GATE) == [place.index]
    assert "other" in place.others(where)
    assert place.names() == []


def test_a_refused_filter_leaves_no_hooks(place: Place) -> None:
    """The error names the interface."""
    with pytest.raises(OSError, match="no program at tc's hooks of d0"):
        place.hooks().put(place.index, 0, INGRESS)  # no program
    assert not place.has_hooks()


def test_hooks_that_another_adds_meanwhile_are_its_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the request."""
    hooks = place.hooks()
    place.tc("qdisc", "add", "dev", "d0", "clsact")
    with monkeypatch.context() as patch:
        patch.setattr(clsact, "_hooked", lambda _socket: {})
        hooks.put(place.index, place.program, INGRESS)
    assert place.names() == ["overlayd:gate"]
    hooks.delete(place.index, INGRESS)
    assert place.has_hooks()


def test_tcs_ingress_has_one_hook(place: Place) -> None:
    """What it has is used, and removed; nothing takes its place for what is sent."""
    place.tc("qdisc", "add", "dev", "d0", "ingress")
    hooks = place.hooks()
    assert (
        clsact.obstacle(place.socket, [place.index])
        == "tc's ingress on d0 leaves no hook for what it sends"
    )
    hooks.put(place.index, place.program, INGRESS)
    with pytest.raises(OSError, match="tc's ingress on d0 leaves no hook") as raised:
        hooks.put(place.index, place.program, EGRESS)
    assert raised.value.errno == errno.EOPNOTSUPP
    places = [(place.index, where) for where in BOTH]
    assert [len(each) for each in hooks.at(places).values()] == [1, 0]
    assert interface_hooks.remove_of(place.socket, HookOwner(GATE, ONE)) == [place.index]
    assert place.names() == []
    assert place.has_hooks("ingress")


def test_shared_filters_are_an_obstacle(place: Place) -> None:
    """They would be another interface's as well; the kernel refuses to change them by one."""
    place.tc("qdisc", "add", "dev", "d0", "ingress_block", "21", "clsact")
    hooks = place.hooks()
    expected = "tc's hooks on d0 share their filters with other interfaces"
    assert clsact.obstacle(place.socket, [place.index]) == expected
    assert clsact.obstacle(place.socket, [place.index + 1]) == ""
    with pytest.raises(OSError, match="no program at tc's hooks of d0: "):
        hooks.put(place.index, place.program, INGRESS)
    assert place.has_hooks()


def test_a_missing_interface_is_no_failure(place: Place) -> None:
    """It may vanish at any time."""
    hooks = place.hooks()
    hooks.put(999, place.program, INGRESS)
    hooks.delete(999, INGRESS)
    assert hooks.at([(999, INGRESS)]) == {(999, INGRESS): []}


@pytest.mark.skipif(not tcx.has_tcx(), reason="needs Linux 6.6")
def test_an_owners_programs_go_from_both_kinds(place: Place) -> None:
    """Whichever kind an agent of before has used."""
    owner = HookOwner(GATE, ONE)
    for hooks in (place.hooks(), TcxHooks(owner)):
        for where in BOTH:
            hooks.put(place.index, place.program, where)
    assert interface_hooks.remove_of(place.socket, owner) == [place.index]
    assert not place.has_hooks()
    assert TcxHooks(owner).read(INGRESS) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENOMEM])
def test_only_a_kernel_that_says_so_has_none(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A shortage says nothing about the kernel, and is asked again."""

    def attached(_index: int) -> list[int]:
        raise OSError(number, "refused")

    monkeypatch.setattr(syscall, "attached", attached)
    has_tcx = tcx.has_tcx.__wrapped__
    if number == errno.ENOMEM:
        with pytest.raises(OSError, match="refused"):
            has_tcx()
    else:
        assert not has_tcx()
