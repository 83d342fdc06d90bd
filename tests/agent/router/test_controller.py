"""This host is on the networks that routers lead to, and leaves them again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.router.controller import RouterController
from overlay.agent.router.registry import RouterSpec
from overlay.agent.router.sandbox_needs import SandboxNeeds
from overlay.errors import ConflictError
from overlay.model import Network, Vni
from overlay.signals import Signal
from tests.agent.router.conftest import RouterBench


class Participation:
    """Notes which networks have a sandbox; some cannot."""

    def __init__(self, *refused: str) -> None:
        self.changed: Signal[[]] = Signal()
        self.here: list[str] = []
        self._refused = refused

    async def begin(self, network: Network) -> list[Any]:
        """Begin, unless this network is refused."""
        if network.name in self._refused:
            raise ConflictError("no WireGuard here", why="it is missing", hint="install it")
        self.here = sorted({*self.here, network.name})
        return []

    async def end_unused(self, vni: Vni) -> list[Any]:
        """End."""
        names = {7: "blue", 9: "red", 11: "green"}
        self.here = [each for each in self.here if each != names[vni]]
        return []


class Bench:
    """A host with a container on blue, and what its controller did."""

    def __init__(self, made: RouterBench, *refused: str) -> None:
        self.registry = made.registry
        self.attachments: dict[bytes, Any] = {b"c1": SimpleNamespace(vni=7)}
        nothing = SimpleNamespace(needs_no_container=lambda _: False, without_containers=tuple)
        self.needs = SandboxNeeds(made.directory, self.attachments, (nothing,))
        self.participation = Participation(*refused)
        self.controller = RouterController(
            made.context, self.needs, cast("Any", self.participation)
        )


async def test_networks_of_routers_are_followed(bench: RouterBench) -> None:
    """Those that the used ones lead to, and not the ones beyond them."""
    host = Bench(bench)
    host.registry.create(RouterSpec("r1", ("blue", "red")))
    host.registry.create(RouterSpec("r2", ("red", "green")))
    await host.controller.reconcile()
    assert host.participation.here == ["red"]
    assert host.needs.without_containers() == [9]
    assert host.needs.needs_no_container(Vni(9))

    host.attachments[b"c2"] = SimpleNamespace(vni=9)
    await host.controller.reconcile()
    assert host.participation.here == ["blue", "green", "red"]

    host.attachments.clear()
    await host.controller.reconcile()
    assert host.participation.here == []


async def test_a_network_that_cannot_be_joined_is_named(bench: RouterBench) -> None:
    """The others are joined, and `status` says what to do."""
    host = Bench(bench, "red")
    host.registry.create(RouterSpec("r1", ("blue", "red", "green")))
    await host.controller.reconcile()

    assert host.participation.here == ["green"]
    (fault,) = host.controller.faults()
    assert fault.text == "this host does not route to network red: no WireGuard here"
    assert fault.hint == "install it"


async def test_a_host_that_leaves_is_on_no_routed_network(bench: RouterBench) -> None:
    """Whatever is still attached."""
    host = Bench(bench)
    host.registry.create(RouterSpec("r1", ("blue", "red")))
    await host.controller.reconcile()
    await host.controller.withdraw()

    assert host.needs.without_containers() == []


@pytest.mark.parametrize("name", ["red", "blue"])
async def test_what_a_router_reaches_is_shown(bench: RouterBench, name: str) -> None:
    """From each of its networks the others."""
    router, _ = bench.registry.create(RouterSpec("r1", ("blue", "red", "green")))
    network = bench.directory.network(name)

    others = {"blue", "red", "green"} - {name}
    assert bench.registry.reached_by(router, network) == sorted(others)
