"""On a host without free descriptors nothing counts as gone."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.exposure.gate.translation_gate import TranslationGate
from overlay.agent.exposure.rules import HostRules
from overlay.agent.networks.drivers.port_removals import PortRemovals
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import ExposedLink
from overlay.errors import NotFoundError, OverlayError
from overlay.kernel import netns, reset
from overlay.kernel.host import default_route, macvlan
from overlay.kernel.host.macvlan import InterfaceLocation
from overlay.kernel.sandbox import kernel_support, veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import NodeId, Vni, parse_ip

if TYPE_CHECKING:
    from overlay.agent.dataplane.reconciler import Reconciler
    from overlay.agent.gossip.context import NodeContext
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


def opened() -> set[int]:
    """Return the open descriptors."""
    gc.collect()
    return {fd for fd in range(4096) if os.path.exists(f"/proc/self/fd/{fd}")}  # noqa: PTH110


@contextmanager
def no_descriptors(but: int = 0) -> Iterator[None]:
    """Limit this process to its open files, or to `but` more (EMFILE)."""
    open_now = opened()
    free = [number for number in range(4096) if number not in open_now]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[but - 1] + 1 if but else 0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def living(world: World) -> InterfaceLocation:
    """Create a namespace that exists throughout."""
    name = world.namespace("living")
    return InterfaceLocation(str(netns.path_of(name)), netns.identity(world.fd(name)), "ve0")


def test_a_living_namespace_is_not_gone(living: InterfaceLocation) -> None:
    """Without descriptors, opening a namespace does not say "not found"."""
    with no_descriptors(), pytest.raises(OverlayError, match="Too many open files") as caught:
        netns.open_same(living.netns_path, living.netns_identity)

    assert not isinstance(caught.value, NotFoundError)
    assert "ulimit -n" in caught.value.hint


def test_an_ended_namespace_is_gone(world: World, living: InterfaceLocation) -> None:
    """A removed name, another namespace, and a stale file count as gone."""
    descriptor = netns.open_same(living.netns_path, living.netns_identity)
    assert descriptor is not None
    os.close(descriptor)
    other = netns.path_of(world.namespace("other"))
    left = netns.path_of(world.claim("left"))
    left.touch()
    netns.remove(netns.path_of(living.netns_path).name)

    for path in (living.netns_path, other, left, "/proc/self/ns/net/more", "/proc/0/ns/net"):
        assert netns.open_same(path, living.netns_identity) is None


def test_a_name_does_not_count_as_free(living: InterfaceLocation) -> None:
    """No second namespace is mounted over a name that cannot be checked."""
    with no_descriptors(), pytest.raises(OverlayError, match="Too many open files"):
        netns.exists(netns.path_of(living.netns_path).name)


def test_an_interface_is_not_missing(living: InterfaceLocation) -> None:
    """No interface counts as missing, and no removal as done."""
    with no_descriptors():
        assert macvlan.missing_interfaces([living]) == []
        with pytest.raises(OverlayError, match="Too many open files"):
            macvlan.detach_interface(living)

    assert macvlan.missing_interfaces([living]) == [living], "it never was there"


def test_a_default_route_check_fails(living: InterfaceLocation) -> None:
    """The caller gets an error because the default route was not checked."""
    with no_descriptors(), pytest.raises(OverlayError, match="Too many open files"):
        default_route.reconcile(living.netns_path, living.netns_identity, [])


def test_a_sandbox_is_not_recreated(world: World) -> None:
    """A sandbox that cannot be opened is neither missing nor created."""
    name = world.host().sandbox.name
    with no_descriptors():
        for create in (False, True):
            with pytest.raises(OverlayError, match="Too many open files") as caught:
                Sandbox.open(name, create=create)
            assert not isinstance(caught.value, NotFoundError)


def test_no_namespace_is_skipped(world: World) -> None:
    """Listing namespaces fails instead of skipping some, as does a reset.

    Otherwise the name of a sandbox in use would be removed.
    """
    sandbox = world.claim("ov-0a0b0c")
    os.close(netns.create(sandbox))
    names = netns.names()
    assert sandbox in names
    with no_descriptors():
        with pytest.raises(OverlayError, match="Too many open files"):
            list(kernel_support.namespaces())
        with pytest.raises(OverlayError, match="Too many open files"):
            reset._alias(sandbox)


def test_a_port_is_removed_after_the_shortage(world: World, tmp_path: Path) -> None:
    """Its removal does not fail for whoever detaches the container; the next pass makes up."""
    host = world.host()
    assert host.converge() == []
    container = host.attach(parse_ip("10.32.0.2"))
    (port,) = host.ports
    kernel = KernelThread()

    async def work() -> None:
        runtime = SandboxRuntime(host.sandbox, monitor, asyncio.Lock())
        context = SimpleNamespace(event_log=EventLog(tmp_path), kernel=kernel)
        reconciler = SimpleNamespace(runtime={host.vni: runtime}.get)
        removals = PortRemovals(cast("NodeContext", context), cast("Reconciler", reconciler))
        with no_descriptors():
            assert await removals.remove(host.vni, runtime, port, [])
            await removals.attempt()
        (fault,) = removals.faults()
        assert fault.text == "a detached container still has its interface: Too many open files"
        assert "ulimit -n" in fault.hint
        assert "eth0" in world.run(container, "ip", "-o", "link")
        await removals.attempt()
        assert [*removals.faults()] == []
        assert "eth0" not in world.run(container, "ip", "-o", "link")

    with closing(host.sandbox.monitor()) as monitor:
        asyncio.run(work())
    kernel.close()


def test_a_failed_creation_leaks_no_descriptor(world: World) -> None:
    """A failed creation of a sandbox closes all its descriptors."""
    name = world.claim("leaky")
    before = opened()
    made = 0
    for count in range(20):
        with no_descriptors(but=count), suppress(OverlayError, OSError):
            sandbox = Sandbox.open(name, create=True)
            assert sandbox.guard is not None, "port security is no luxury"
            sandbox.close()
            made += 1
        assert opened() == before, f"with {count} descriptors"
    assert 0 < made < 20


def test_a_container_is_created_completely_or_not_at_all(world: World) -> None:
    """A namespace that cannot be marked is removed again."""
    before = opened()
    made = 0
    for count in range(12):
        name = world.claim(f"half{count}")
        with no_descriptors(but=count), suppress(OverlayError, OSError):
            os.close(veth.create_namespace(name))
            made += 1
            continue
        assert not netns.path_of(name).exists(), f"with {count} descriptors"
        assert opened() == before, f"with {count} descriptors"
    assert 0 < made < 12


def test_the_hosts_rules_appear_after_the_shortage(world: World, tmp_path: Path) -> None:
    """Whichever descriptor was missing, the table exists after the next check."""
    link = ExposedLink("ovh000001aabbcc", ((parse_ip("10.32.0.0"), 16),))
    event_log = EventLog(tmp_path)
    with netns.inside(world.fd(world.namespace("host"))):
        kernel = KernelThread()
        asyncio.run(kernel.call(os.getpid))  # its thread is born in this namespace
    for count in range(4):
        node_id = NodeId(b"\x11" * 16)
        gate = TranslationGate(node_id, kernel, "off")
        rules = HostRules(node_id, kernel, event_log, gate, 30.0)
        rules.set_links(Vni(1), [link])

        async def work(rules: HostRules = rules, count: int = count) -> None:
            with no_descriptors(but=count):
                await rules.apply()
            await rules.attempt()
            assert rules.fault is None
            assert await rules.differences() == []
            await rules.remove()

        asyncio.run(work())
        rules.close()
    kernel.close()
