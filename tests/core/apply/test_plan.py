"""The plan leads from any present state to the declared one, and then there is nothing to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.apply.items import KINDS, NETWORK, POLICY, ROUTER, DeclaredItem, Setting
from overlay.core.apply.plan import PlannedStep, SettingChange, plan, text
from overlay.errors import ConflictError, UsageError

Key = tuple[str, tuple[str, ...]]
OWNERS = ("", "shop", "other")


def network(name: str, owner: str = "", **settings: Setting) -> DeclaredItem:
    """Return a network."""
    default: dict[str, Setting] = {"subnets": ("10.32.0.0/16",), "internal": False}
    return DeclaredItem(NETWORK, (name,), default | settings, owner)


def record(network_name: str, name: str, *ips: str, owner: str = "") -> DeclaredItem:
    """Return a DNS record."""
    return DeclaredItem("dns", (network_name, name), {"network": network_name, "ips": ips}, owner)


def carried_out(
    present: Iterable[DeclaredItem], steps: Iterable[PlannedStep]
) -> dict[Key, DeclaredItem]:
    """Return the state after some steps, each of which must be possible."""
    state = {item.key: item for item in present}
    for step in steps:
        key = step.item.key
        assert (key in state) == (step.action != "create")
        if step.action == "remove":
            del state[key]
            assert not any(
                item.settings.get("network") == step.item.identity[0] and item.owner == "shop"
                for item in state.values()
                if step.item.kind == NETWORK
            ), "what is on a network goes before it"
        else:
            state[key] = step.item
            needed = step.item.settings.get("network")
            assert needed is None or (NETWORK, (str(needed).lower(),)) in state
    return state


@st.composite
def states(draw: st.DrawFn, owners: tuple[str, ...]) -> list[DeclaredItem]:
    """Draw a consistent state: records only on networks that exist."""
    names = draw(st.lists(st.sampled_from(["blue", "red", "Green"]), unique=True))
    owner = st.sampled_from(owners)
    items = [network(name, draw(owner), internal=draw(st.booleans())) for name in names]
    for name in names:
        for record_name in draw(st.lists(st.sampled_from(["db", "nas"]), unique=True)):
            ips = draw(st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2"]), min_size=1, unique=True))
            items.append(record(name, record_name, *sorted(ips), owner=draw(owner)))
    return items


@given(states(("", "shop")), states(("",)), st.sampled_from(["", "shop"]), st.booleans())
def test_steps_lead_to_what_is_declared(
    present: list[DeclaredItem], declared: list[DeclaredItem], owner: str, prune: bool
) -> None:
    """Afterwards all that is declared is there, and a second plan has no step."""
    steps = plan(declared, present, owner=owner, prune=prune)
    after = carried_out(present, steps)

    for item in declared:
        assert item.settings.items() <= after[item.key].settings.items()
        assert not owner or after[item.key].owner == owner
    if prune and owner:
        wanted = {item.key for item in declared}
        assert {key for key, item in after.items() if item.owner == owner} <= wanted
    assert plan(declared, after.values(), owner=owner, prune=prune) == []


@given(states(OWNERS))
def test_what_is_present_needs_no_step(present: list[DeclaredItem]) -> None:
    """A file without an owner that declares the present state changes nothing."""
    assert plan(present, present) == []


def test_changes_show_before_and_after() -> None:
    """Each setting that differs is named with both values, and so is a new owner."""
    (step,) = plan([network("Blue", internal=True)], [network("blue")], owner="shop")

    assert step.action == "change"
    assert step.changes == (
        SettingChange("internal", False, True),
        SettingChange("owner", None, "shop"),
    )
    assert step.item.identity == ("blue",)
    assert [text(value) for value in (True, None, ("a", "b"), 5)] == ["yes", "-", "a b", "5"]


def test_a_setting_left_out_may_be_anything() -> None:
    """It is neither changed nor refused."""
    declared = DeclaredItem(NETWORK, ("blue",), {"internal": False})

    assert plan([declared], [network("blue", vni=7)]) == []


def test_what_moves_is_free_in_time() -> None:
    """Removals come first, and the network of a record before the record."""
    present = [network("old", "shop"), record("old", "db", "10.0.0.1", owner="shop")]
    declared = [record("new", "db", "10.0.0.1"), network("new")]

    steps = plan(declared, present, owner="shop", prune=True)

    assert [(step.action, step.item.kind) for step in steps] == [
        ("remove", "dns"),
        ("remove", NETWORK),
        ("create", NETWORK),
        ("create", "dns"),
    ]


def test_nothing_is_pruned_of_others() -> None:
    """Neither what another file made, nor what nobody declared; nor anything without prune."""
    present = [network("a", "other"), network("b"), network("c", "shop")]

    assert plan([], present, owner="shop") == []
    assert [step.item.identity for step in plan([], present, owner="shop", prune=True)] == [("c",)]


def test_impossible_files_are_refused() -> None:
    """Twice the same, another owner's, a setting that is fixed, a network that is not there."""
    blue = DeclaredItem(
        NETWORK, ("blue",), {"gateway 10.32.0.0/16": "10.32.0.9"}, path="network[1]"
    )
    present = network("blue", "other", **{"gateway 10.32.0.0/16": "10.32.0.1"})

    with pytest.raises(UsageError, match="network BLUE is declared twice"):
        plan([blue, network("BLUE")], [])
    with pytest.raises(ConflictError, match="belongs to owner 'other'"):
        plan([blue], [present], owner="shop")
    with pytest.raises(ConflictError, match=r"gateway .* cannot change from 10.32.0.1") as caught:
        plan([blue], [present])
    assert caught.value.field == "network[1].gateway 10.32.0.0/16"
    with pytest.raises(ConflictError, match="needs network 'red', which does not exist"):
        plan([record("red", "db", "10.0.0.1")], [present])
    service = DeclaredItem("service", ("front",), {"network": "blue"}, "other")
    with pytest.raises(ConflictError) as caught:
        plan([], [network("blue", "shop"), service], owner="shop", prune=True)
    assert "service front, of owner 'other'" in caught.value.why
    with pytest.raises(ConflictError) as caught:
        plan(
            [record("blue", "db", "10.0.0.1")], [network("blue", "shop")], owner="shop", prune=True
        )
    assert "pruned" in caught.value.why


def test_kinds_begin_with_what_others_need() -> None:
    """Everything is on a network."""
    assert next(iter(KINDS)) == NETWORK


def policy(name: str, *sources: str) -> DeclaredItem:
    """Return a policy on network blue."""
    settings: dict[str, Setting] = {"network": "blue", "from": sources, "to": ()}
    return DeclaredItem(POLICY, (name,), settings, "shop")


@pytest.mark.parametrize("on", [True, False])
def test_a_network_denies_while_its_policies_are_there(*, on: bool) -> None:
    """Otherwise what they allow would be cut off in between."""
    before, after = (network("blue", "shop", default_deny=each) for each in (not on, on))
    item = policy("db")
    declared, present = [after], [before]
    (declared if on else present).append(item)
    steps = [step.item.kind for step in plan(declared, present, owner="shop", prune=True)]

    assert steps == ([POLICY, NETWORK] if on else [NETWORK, POLICY])


def test_a_peer_names_a_network_that_will_be_there() -> None:
    """In the file or in the cluster."""
    found = [network("blue"), policy("db", "host", "network:rde")]

    with pytest.raises(ConflictError, match="needs network 'rde'") as caught:
        plan(found, [network("red")])
    assert caught.value.hint == "Did you mean red?"
    assert plan([*found, network("RDE")], [])


def router(*names: str) -> DeclaredItem:
    """Return a router that connects networks."""
    return DeclaredItem(ROUTER, ("r1",), {"networks": names, "allow_clear": False}, "shop")


def test_a_router_needs_its_networks() -> None:
    """In the file or in the cluster; and it comes after them."""
    found = [router("blue", "rde"), network("blue")]

    with pytest.raises(ConflictError, match="needs network 'rde'"):
        plan(found, [network("red")])
    steps = plan([*found, network("rde")], [])
    assert [step.item.kind for step in steps] == [NETWORK, NETWORK, ROUTER]


@pytest.mark.parametrize("declared", [["blue", "green"], []])
def test_a_network_leaves_its_routers_first(declared: list[str]) -> None:
    """By a change of the router, or with it."""
    present = [network(name, "shop") for name in ("blue", "green", "red")]
    wanted = [network(name) for name in ("blue", "green")]
    wanted += [router(*declared)] if declared else []
    steps = plan(wanted, [*present, router("blue", "green", "red")], owner="shop", prune=True)

    assert [(step.action, step.item.kind) for step in steps] == [
        ("change" if declared else "remove", ROUTER),
        ("remove", NETWORK),
    ]


def test_a_network_of_another_router_stays() -> None:
    """One that no file has made is not changed by one that has not."""
    present = [network("blue", "shop"), network("red"), replace(router("blue", "red"), owner="")]

    with pytest.raises(ConflictError, match="network blue is in use") as caught:
        plan([], present, owner="shop", prune=True)
    assert "router r1" in caught.value.why
