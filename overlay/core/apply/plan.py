"""The plan: the steps from what is present to what a file declares.

Owns: which objects to create, change and remove, in which order, and what is refused.
Does not: read a file, know records, or carry out a step.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from overlay.core.apply.items import KINDS, NETWORK, POLICY, ROUTER, SERVICE, DeclaredItem, Setting
from overlay.core.policy.policy import PeerKind
from overlay.errors import ConflictError, UsageError

Action = Literal["create", "change", "remove"]
OWNER: Final = "owner"


class SettingChange(NamedTuple):
    """A setting that differs: its value before and after."""

    setting: str
    before: Setting
    after: Setting


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One object to create, change or remove.

    `item` is the object afterwards, or the one that is removed.
    """

    action: Action
    item: DeclaredItem
    changes: tuple[SettingChange, ...] = ()


def plan(
    declared: Sequence[DeclaredItem],
    present: Iterable[DeclaredItem],
    *,
    owner: str = "",
    prune: bool = False,
) -> list[PlannedStep]:
    """Return the steps in the order in which they work.

    With `prune`, objects of `owner` that are not declared are removed. Without an owner, objects
    that exist keep theirs. Raises UsageError for an object that is declared twice, ConflictError
    for a change that is not possible and for an object of another owner.
    """
    known = {item.key: item for item in present}
    wanted: dict[tuple[str, tuple[str, ...]], DeclaredItem] = {}
    for item in declared:
        first = wanted.setdefault(item.key, item)
        if first is not item:
            raise UsageError(
                f"{item.title} is declared twice",
                why=f"the first one is {first.path}" if first.path else "",
                hint="Leave one of them out",
                field=item.path,
            )
    steps = [step for item in declared for step in _step(item, known.get(item.key), owner)]
    if prune and owner:
        gone = [item for item in known.values() if item.owner == owner and item.key not in wanted]
        steps += [PlannedStep("remove", item) for item in gone]
    _require_networks(declared, known, steps)
    _require_no_services(known.values(), steps)
    _require_no_routers(known.values(), steps)
    return sorted(steps, key=_place)


def _step(item: DeclaredItem, present: DeclaredItem | None, owner: str) -> list[PlannedStep]:
    if present is None:
        return [PlannedStep("create", replace(item, owner=owner))]
    if owner and present.owner and present.owner != owner:
        raise ConflictError(
            f"{item.title} belongs to owner {present.owner!r}",
            why=f"a file with that owner has made it, and this file's owner is {owner!r}",
            hint="Remove it from one of the two files, or give both the same owner",
            field=item.path,
        )
    changes = [
        SettingChange(setting, before, value)
        for setting, value in item.settings.items()
        if (before := present.settings.get(setting)) != value
    ]
    _require_changeable(item, changes)
    kept = owner or present.owner
    if kept != present.owner:
        changes.append(SettingChange(OWNER, present.owner or None, kept))
    after = replace(
        item,
        identity=present.identity,
        settings={**present.settings, **item.settings},
        owner=kept,
    )
    return [PlannedStep("change", after, tuple(changes))] if changes else []


def _require_changeable(item: DeclaredItem, changes: Iterable[SettingChange]) -> None:
    kind = KINDS[item.kind]
    for change in changes:
        if change.setting.partition(" ")[0] in kind.fixed:
            raise ConflictError(
                f"{item.title}: {change.setting} cannot change from {text(change.before)} to "
                f"{text(change.after)}",
                why=kind.why_fixed,
                hint=f"Declare {text(change.before)}; or remove the {kind.noun} first, and apply "
                "the file again",
                field=f"{item.path}.{change.setting}" if item.path else change.setting,
            )


def _require_networks(
    declared: Iterable[DeclaredItem],
    known: dict[tuple[str, tuple[str, ...]], DeclaredItem],
    steps: list[PlannedStep],
) -> None:
    """Raise ConflictError for an object on a network that there will not be."""
    there = {item.identity[0].lower() for item in known.values() if item.kind == NETWORK}
    there |= {step.item.identity[0].lower() for step in steps if step.item.kind == NETWORK}
    gone = {
        step.item.identity[0].lower()
        for step in steps
        if step.item.kind == NETWORK and step.action == "remove"
    }
    for item in declared:
        for network in _networks_of(item):
            if network.lower() in there - gone:
                continue
            near = difflib.get_close_matches(network.lower(), there - gone, n=1)
            raise ConflictError(
                f"{item.title} needs network {network!r}, which does not exist",
                why="it is pruned, because the file no longer declares it"
                if network.lower() in gone
                else "neither the cluster nor the file has it",
                hint=f"Did you mean {near[0]}?"
                if near
                else "Declare the network in the file, or correct its name",
                field=f"{item.path}.network" if item.path else "network",
            )


def _networks_of(item: DeclaredItem) -> Iterator[str]:
    """Yield the networks that an object needs: its own, and those that a policy's peers name."""
    network = item.settings.get("network")
    if item.kind != NETWORK and isinstance(network, str):
        yield network
    networks = item.settings.get("networks")
    if item.kind == ROUTER and isinstance(networks, tuple):
        yield from networks
    for side in ("from", "to") if item.kind == POLICY else ():
        peers = item.settings[side]
        assert isinstance(peers, tuple), "a list of texts"
        for peer in peers:
            if peer.startswith(PeerKind.NETWORK.value):
                yield peer.removeprefix(PeerKind.NETWORK.value)


def _require_no_services(present: Iterable[DeclaredItem], steps: Iterable[PlannedStep]) -> None:
    """Raise ConflictError for a network to be removed on which a service stays."""
    gone = {step.item.key for step in steps if step.action == "remove"}
    for item in present:
        network = (NETWORK, (str(item.settings.get("network")).lower(),))
        if item.kind == SERVICE and network in gone and item.key not in gone:
            raise ConflictError(
                f"network {item.settings['network']} is in use",
                why=f"it has {item.title}, "
                + (f"of owner {item.owner!r}" if item.owner else "which no file has made"),
                hint=f"Remove that first: overlayd service rm {item.identity[0]}",
            )


def _require_no_routers(present: Iterable[DeclaredItem], steps: Iterable[PlannedStep]) -> None:
    """Raise ConflictError for a network to be removed that a router goes on connecting."""
    after = {step.item.key: step for step in steps}
    for item in present:
        step = after.get(item.key)
        if item.kind != ROUTER or (step is not None and step.action == "remove"):
            continue
        for name in _networks_of(item if step is None else step.item):
            network = after.get((NETWORK, (name.lower(),)))
            if network is not None and network.action == "remove":
                raise ConflictError(
                    f"network {name} is in use",
                    why=f"{item.title} connects it with other networks",
                    hint=f"Take it off first: overlayd router set {item.identity[0]} --remove "
                    f"{name}",
                )


def _place(step: PlannedStep) -> tuple[int, int, tuple[str, tuple[str, ...]]]:
    """Return where a step stands: removals first, and what others need last among them.

    So a port or VNI that moves from one object to another is free in time. A network denies by
    default only when its policies are there, and no longer when they go. A router leaves networks
    before they are removed.
    """
    default = next((each for each in step.changes if each.setting == "default_deny"), None)
    if default is not None:
        return 2 if default.after else -1, 0, step.item.key
    if step.item.kind == ROUTER and _only_leaves(step):
        return -1, 0, step.item.key
    order = list(KINDS).index(step.item.kind)
    if step.action == "remove":
        return 0, -order, step.item.key
    return 1, order, step.item.key


def _only_leaves(step: PlannedStep) -> bool:
    """Return whether a router only loses networks."""
    changed = next((each for each in step.changes if each.setting == "networks"), None)
    if changed is None or not isinstance(changed.before, tuple):
        return False
    return isinstance(changed.after, tuple) and set(changed.after) < set(changed.before)


def text(value: Setting) -> str:
    """Return a setting as a plan shows it."""
    if value is None or value in ((), ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(value)
    return str(value)
