"""Routers of a declared state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from overlay.agent.apply.owner_label import owner_of, user_texts, with_owner
from overlay.agent.records.directory import Directory
from overlay.agent.router.registry import RouterRegistry, RouterSpec
from overlay.core.apply.items import ROUTER, DeclaredItem
from overlay.core.apply.plan import PlannedStep


def router_item(spec: RouterSpec, path: str = "") -> DeclaredItem:
    """Return a router."""
    return DeclaredItem(
        ROUTER,
        (spec.name,),
        {
            "networks": tuple(sorted(spec.networks)),
            "allow_clear": spec.allow_clear,
            "labels": user_texts(spec.labels),
        },
        owner_of(spec.labels),
        path,
        spec,
    )


class RouterObjects:
    """The cluster's routers."""

    def __init__(self, directory: Directory, routers: RouterRegistry) -> None:
        self._directory = directory
        self._routers = routers

    def present(self) -> Iterator[DeclaredItem]:
        """Yield all routers."""
        for router in self._routers.catalog.all():
            yield router_item(self._routers.spec_of(router))

    async def check(self, step: PlannedStep) -> None:
        """Raise the error with which a router would not be created or changed.

        Its networks may be declared in the same file: the plan checks that they exist.
        """
        if step.action != "remove":
            self._routers.check(_spec(step.item))

    async def carry_out(self, step: PlannedStep) -> None:
        """Create, change or remove a router."""
        wanted = _spec(step.item)
        match step.action:
            case "create":
                self._routers.create(wanted)
            case "change":
                self._routers.change(wanted.name, lambda found: replace(wanted, name=found.name))
            case "remove":
                self._routers.remove(wanted.name)


def _spec(item: DeclaredItem) -> RouterSpec:
    """Return the router of an item, with the item's owner."""
    spec = item.source
    assert isinstance(spec, RouterSpec), "each item of a router has it"
    return replace(spec, labels=with_owner(spec.labels, item.owner))
