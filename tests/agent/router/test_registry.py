"""Routers are created, changed and removed; what cannot work is refused in words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from overlay.agent.encryption.switch_service import SwitchService
from overlay.agent.router.registry import RouterSpec
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from tests.agent.router.conftest import RouterBench

R1 = RouterSpec("r1", ("red", "blue"))


async def test_a_router_connects_its_networks(bench: RouterBench) -> None:
    """From each to each, once it is created; twice the same changes nothing."""
    made, is_new = bench.registry.create(R1)

    assert is_new
    assert made.vnis == (7, 9)
    assert bench.registry.create(replace(R1, name="R1", networks=("Blue", "red"))) == (made, False)
    assert (bench.reached(7), bench.reached(9), bench.reached(11)) == (["red"], ["blue"], [])


async def test_a_network_joins_and_leaves_a_router(bench: RouterBench) -> None:
    """The others stay connected."""
    bench.registry.create(R1)
    bench.registry.change("r1", lambda spec: replace(spec, networks=(*spec.networks, "green")))
    assert bench.reached(7) == ["red", "green"]

    _, changed = bench.registry.change("r1", lambda spec: replace(spec, networks=("red", "blue")))
    assert changed
    assert bench.reached(7) == ["red"]
    assert not bench.registry.change("r1", lambda spec: spec)[1]
    bench.registry.remove("r1")
    assert bench.reached(7) == []


@pytest.mark.parametrize(
    ("spec", "kind", "text"),
    [
        (RouterSpec("r", ("blue",)), UsageError, "at least two"),
        (RouterSpec("r", ("blue", "Blue")), UsageError, "at least two"),
        (RouterSpec("r", ("blue", "nope")), NotFoundError, "nope"),
        (RouterSpec("r", ("blue", "near")), ConflictError, "overlap"),
        (RouterSpec("r", ("blue", "six")), ConflictError, "IPv6 subnets alone"),
        (RouterSpec("r", ("blue", "lan")), ConflictError, "driver macvlan"),
        (RouterSpec("r", ("blue", "secret")), ConflictError, "in clear"),
        (RouterSpec("r1", ("blue", "green")), ConflictError, "differs in: networks"),
        (RouterSpec("r1", ("blue", "red"), allow_clear=True), ConflictError, "allow_clear"),
        (RouterSpec("r", ("red", "near")), ConflictError, "would be routed to both"),
        (
            RouterSpec("r", ("green", "red"), labels=tuple((str(n), "x" * 60) for n in range(16))),
            UsageError,
            "too large",
        ),
    ],
)
async def test_what_cannot_work_is_refused(
    bench: RouterBench, spec: RouterSpec, kind: type[OverlayError], text: str
) -> None:
    """Nothing is written, and the error says why and what to do."""
    bench.registry.create(R1)

    with pytest.raises(kind) as raised:
        bench.registry.create(spec)
    assert text in f"{raised.value.what} {raised.value.why}"
    assert raised.value.hint
    assert [each.name for each in bench.registry.catalog.all()] == ["r1"]


async def test_an_encrypted_network_is_connected_on_request(bench: RouterBench) -> None:
    """With `allow_clear`."""
    bench.registry.create(RouterSpec("r", ("blue", "secret"), allow_clear=True))

    assert bench.reached(17) == ["blue"]


async def test_an_unknown_router_is_named_with_the_known_ones(bench: RouterBench) -> None:
    """And what to type instead."""
    bench.registry.create(R1)

    with pytest.raises(NotFoundError, match="r2") as raised:
        bench.registry.require("r2")
    assert "r1" in raised.value.why


async def test_a_network_is_not_switched_alone(bench: RouterBench) -> None:
    """Its packets would be in clear on the way to the others, or theirs to it."""
    encryption: Any = SimpleNamespace(policy=SimpleNamespace(required=False))
    switch: Any = SimpleNamespace(is_over=lambda _: True)
    service = SwitchService(bench.directory, encryption, switch)
    bench.registry.create(R1)

    with pytest.raises(ConflictError, match="while router r1 connects it") as raised:
        await service.switch("blue", encrypted=True)
    assert "network red" in raised.value.why
    assert "router set r1 --allow-clear on" in raised.value.hint
