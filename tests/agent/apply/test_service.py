"""Applying a declared state: checks first, then step by step until one fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from overlay.agent.apply.service import ApplyService
from overlay.agent.process.event_log import EventLog
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.errors import ConflictError, ForbiddenError, OverlayError


class Objects:
    """Networks in memory, some of which are refused."""

    def __init__(self) -> None:
        self.items: dict[str, DeclaredItem] = {}
        self.refused: set[str] = set()
        self.failing: set[str] = set()

    def present(self) -> Iterator[DeclaredItem]:
        """Yield what is there."""
        yield from list(self.items.values())

    async def check(self, step: PlannedStep) -> None:
        """Refuse some names."""
        if step.item.identity[0] in self.refused:
            raise ConflictError("it is taken", field="subnets")

    async def carry_out(self, step: PlannedStep) -> None:
        """Do it, or fail."""
        if step.item.identity[0] in self.failing:
            raise OverlayError("the disk is full")
        if step.action == "remove":
            del self.items[step.item.identity[0]]
        else:
            self.items[step.item.identity[0]] = step.item


def declared(*names: str) -> list[DeclaredItem]:
    """Return networks as a file has them."""
    return [
        DeclaredItem("network", (name,), {"internal": False}, path=f"network[{number}]")
        for number, name in enumerate(names)
    ]


async def anything(_steps: Sequence[PlannedStep]) -> None:
    """Allow all steps."""


@pytest.fixture
def objects() -> Objects:
    """Return no networks yet."""
    return Objects()


@pytest.fixture
def service(objects: Objects, tmp_path: Path) -> ApplyService:
    """Return what applies files."""
    return ApplyService({"network": objects}, EventLog(tmp_path))


async def test_nothing_changes_before_all_is_checked(
    service: ApplyService, objects: Objects
) -> None:
    """The second network is refused, so the first one is not created."""
    objects.refused = {"b"}

    with pytest.raises(ConflictError, match="network b: it is taken") as caught:
        await service.apply(declared("a", "b"), "shop", anything, prune=False)

    assert caught.value.field == "network[1].subnets"
    assert not objects.items


async def test_a_failure_ends_it_and_a_second_run_goes_on(
    service: ApplyService, objects: Objects
) -> None:
    """Finished steps stay, and the outcome says how far it came."""
    objects.failing = {"b"}
    outcome = await service.apply(declared("a", "b", "c"), "shop", anything, prune=False)

    assert (outcome.done, len(outcome.steps)) == (1, 3)
    assert outcome.failure is not None
    assert "network b: the disk is full" in str(outcome.failure)
    objects.failing = set()
    outcome = await service.apply(declared("a", "b", "c"), "shop", anything, prune=True)
    assert [step.item.identity for step in outcome.steps] == [("b",), ("c",)]
    assert (await service.apply(declared("a", "b", "c"), "shop", anything, prune=True)).steps == []


async def test_only_an_owners_objects_are_shown(service: ApplyService) -> None:
    """And pruned."""
    await service.apply(declared("a"), "shop", anything, prune=False)
    await service.apply(declared("b"), "", anything, prune=False)

    assert [item.identity for item in service.present()] == [("a",), ("b",)]
    assert [item.identity for item in service.present("shop")] == [("a",)]
    await service.apply([], "shop", anything, prune=True)
    assert [item.identity for item in service.present()] == [("b",)]


async def test_what_is_allowed_is_what_is_done(service: ApplyService, objects: Objects) -> None:
    """The caller's permission is asked for the very steps, when nothing can come between."""
    asked: list[list[PlannedStep]] = []

    async def nothing(steps: Sequence[PlannedStep]) -> None:
        asked.append(list(steps))
        raise ForbiddenError("only root may do this")

    with pytest.raises(ForbiddenError):
        await service.apply(declared("a"), "shop", nothing, prune=False)
    assert [step.item.identity for step in asked[0]] == [("a",)]
    assert objects.items == {}


async def test_a_dry_run_does_nothing(service: ApplyService, objects: Objects) -> None:
    """It shows the steps, none of them done."""
    outcome = await service.apply(declared("a"), "shop", anything, prune=False, dry_run=True)

    assert (len(outcome.steps), outcome.done, objects.items) == (1, 0, {})
