"""Which networks a host may participate in, and which node a name means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import MACVLAN, OVERLAY, labels_of
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"x" * 16)
NOBODY = SimpleNamespace(state_of=lambda _node_id: None)
BASE = parse_ip("10.1.0.0")


def require(*labels: tuple[str, str]) -> None:
    """Check that this host may participate in another host's network with these labels."""
    store = SimpleNamespace(card=lambda _node_id: None)
    directory = Directory(cast("Any", SimpleNamespace(store=store, membership=NOBODY)), OWN)
    subnets = (Subnet(BASE, 16, parse_ip("10.1.0.1")),)
    directory.require_participation(Network(Vni(1), "blue", subnets, OTHER, labels=labels))


def test_any_host_may_use_networks_with_known_drivers() -> None:
    """An overlay network, and a macvlan network with a parent interface."""
    require()
    require(("overlayd.driver", MACVLAN), ("overlayd.parent", "eth0"))


@pytest.mark.parametrize(
    "labels",
    [
        (("overlayd.driver", "hyperlan"),),
        (("overlayd.driver", MACVLAN),),
        (("overlayd.parent", "eth0"),),
        (("overlayd.driver", OVERLAY), ("overlayd.parent", "eth0")),
    ],
)
def test_a_network_with_an_unknown_driver_is_refused(labels: tuple[tuple[str, str], ...]) -> None:
    """A record of a newer version or a malicious member is an error, not a defect."""
    with pytest.raises(ConflictError, match="driver that this version") as caught:
        require(*labels)
    assert "network rm blue" in caught.value.hint


def holding(*names: str) -> Directory:
    """Return the directory of a node that knows networks with these names."""
    subnets = (Subnet(BASE, 16, parse_ip("10.1.0.1")),)
    known = [Network(Vni(vni), name, subnets, OTHER) for vni, name in enumerate(names, 1)]
    store = SimpleNamespace(card=lambda _node_id: None)
    directory = Directory(cast("Any", SimpleNamespace(store=store, membership=NOBODY)), OWN)
    view = SimpleNamespace(networks=lambda: {network.vni: network for network in known})
    directory.view = cast("Any", view)
    return directory


@pytest.mark.parametrize(
    ("is_held", "users", "is_known"),
    [(True, [OTHER], True), (False, [OTHER], False), (False, [], True)],
)
def test_endpoints_are_known_where_held_or_where_nobody_has_any(
    users: list[NodeId], *, is_held: bool, is_known: bool
) -> None:
    """Another host's endpoints are not known here without its records."""
    store = SimpleNamespace(takes_part=lambda _node_id, _scope: is_held)
    directory = Directory(cast("Any", SimpleNamespace(store=store, membership=NOBODY)), OWN)
    view = SimpleNamespace(
        participants=lambda _vni, *, forwarding: users if forwarding else [OTHER]
    )
    directory.view = cast("Any", view)

    assert directory.knows_endpoints(1) == is_known


@pytest.mark.parametrize("text", ["blue", "Blue", "BLUE"])
def test_a_network_is_found_whatever_the_case(text: str) -> None:
    """As DNS compares names."""
    assert holding("red", "Blue").network(text).name == "Blue"
    assert holding("red").find_network(text) is None


def test_of_two_cases_the_exact_name_is_chosen() -> None:
    """Older versions created both; each can still be named, and removed."""
    both = holding("Blue", "blue", "BLUE")

    assert [both.network(text).name for text in ("blue", "Blue", "BLUE", "bLUE")] == [
        "blue", "Blue", "BLUE", "Blue",
    ]  # fmt: skip


def named(states: dict[NodeId, MemberState], name: str = "vm2") -> NodeId:
    """Return which of several nodes called vm2 the directory chooses for a name."""
    store = SimpleNamespace(card=lambda each: SimpleNamespace(name="vm2") if each != OWN else None)
    membership = SimpleNamespace(
        members=lambda: [SimpleNamespace(node_id=each) for each in states], state_of=states.get
    )
    return Directory(cast("Any", SimpleNamespace(store=store, membership=membership)), OWN).node(
        name
    )


def test_a_name_means_its_current_node() -> None:
    """A host that left and came back is a new node; two current nodes are ambiguous."""
    before = NodeId(b"b" * 16)

    assert named({before: MemberState.LEFT, OTHER: MemberState.ALIVE}) == OTHER
    assert named({before: MemberState.LEFT}) == before
    with pytest.raises(ConflictError, match="ambiguous"):
        named({before: MemberState.DEAD, OTHER: MemberState.ALIVE})


@pytest.mark.parametrize(
    ("state", "hint"),
    [(MemberState.DEAD, "Did you mean vm2?"), (MemberState.LEFT, "'overlayd members' lists them")],
)
def test_an_unknown_node_may_be_a_typo(state: MemberState, hint: str) -> None:
    """Of one that is a member; as in a file that publishes ports of hosts."""
    with pytest.raises(NotFoundError, match="there is no node 'wm2'") as refused:
        named({OTHER: state}, "wm2")

    assert refused.value.hint == hint


def test_an_encrypted_network_keeps_its_name() -> None:
    """Of two networks of one name it is the one that is used, whoever created the other."""
    subnets = (Subnet(BASE, 16, parse_ip("10.1.0.1")),)
    labels = labels_of(OVERLAY, "", encrypted=True)
    vault = Network(Vni(9), "vault", subnets, OTHER, labels=labels)
    clear = Network(Vni(1), "vault", subnets, OWN)
    store = SimpleNamespace(
        change_count=lambda *_: 1,
        values=lambda _scope, kind: [(OWN, clear), (OTHER, vault)] if kind == "network" else [],
    )
    directory = Directory(cast("Any", SimpleNamespace(store=store, membership=NOBODY)), OWN)

    assert directory.network("vault") == vault
