"""What the directory lets a host take part in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import MACVLAN, OVERLAY
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError
from overlay.model import Network, NodeId, Subnet, Vni, parse_ip

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"x" * 16)
BASE = parse_ip("10.1.0.0")


def require(*labels: tuple[str, str]) -> None:
    """Ask whether this host may take part in a network of another's with these labels."""
    store = SimpleNamespace(card=lambda _node_id: None)
    directory = Directory(cast("Any", SimpleNamespace(store=store, membership=None)), OWN)
    subnets = (Subnet(BASE, 16, parse_ip("10.1.0.1")),)
    directory.require_participation(Network(Vni(1), "blue", subnets, OTHER, labels=labels))


def test_networks_of_the_kinds_we_know_are_open_to_all() -> None:
    """An overlay, and a macvlan network on an interface."""
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
def test_a_network_of_no_kind_is_refused_with_words(labels: tuple[tuple[str, str], ...]) -> None:
    """What a newer version, or a liar, has written is no defect of this host."""
    with pytest.raises(ConflictError, match="kind that this overlayd does not know") as caught:
        require(*labels)
    assert "network rm blue" in caught.value.hint


def named(states: dict[NodeId, MemberState]) -> NodeId:
    """Ask which node is meant by a name that all of these have."""
    store = SimpleNamespace(card=lambda each: SimpleNamespace(name="vm2") if each != OWN else None)
    membership = SimpleNamespace(
        members=lambda: [SimpleNamespace(node_id=each) for each in states], state_of=states.get
    )
    return Directory(cast("Any", SimpleNamespace(store=store, membership=membership)), OWN).node(
        "vm2"
    )


def test_a_name_means_who_has_it_now() -> None:
    """A host that left and came back is another node of the same name; two that stay are told."""
    before = NodeId(b"b" * 16)

    assert named({before: MemberState.LEFT, OTHER: MemberState.ALIVE}) == OTHER
    assert named({before: MemberState.LEFT}) == before
    with pytest.raises(ConflictError, match="several nodes"):
        named({before: MemberState.DEAD, OTHER: MemberState.ALIVE})
