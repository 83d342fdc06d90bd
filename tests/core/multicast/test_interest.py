"""A host's interest in multicast is a record, and frames go where there is interest."""

from __future__ import annotations

import random

import pytest
from overlay import limits
from overlay.core.multicast.groups import is_prunable, mac_of
from overlay.core.multicast.interest import Interest, interest_of, object_name
from overlay.core.multicast.targets import group_targets
from overlay.model import Ip, NodeId, parse_ip

GROUP, OTHER, GROUP_IPV6 = parse_ip("239.1.2.3"), parse_ip("239.1.2.4"), parse_ip("ff15::77")
OWN, TWO, THREE = (NodeId(bytes([number]) * 16) for number in (1, 2, 3))
VTEPS = {TWO: parse_ip("10.0.0.2"), THREE: parse_ip("10.0.0.3")}


def test_an_interest_reads_back() -> None:
    """Both families, and one that wants all."""
    for wants_all in (False, True):
        made = interest_of(9_000_001, {GROUP_IPV6, GROUP}, wants_all=wants_all)
        assert (
            Interest.from_body(made.body())
            == made
            == Interest(9_000_001, wants_all, tuple(sorted((GROUP, GROUP_IPV6))))
        )
    assert len(object_name(OWN, 7)) == 32
    assert object_name(OWN, 7) != object_name(TWO, 7) != object_name(TWO, 8)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0\0\1\0", b"\0\0\1\2\0", b"\0\0\1\0\1", b"\0\0\1\0\1\x0a\0\0\1",
        b"\0\0\1\0\0" + bytes(15), b"\0\0\1\0\0" + bytes(16),
        b"\0\0\1\0\xff" + bytes([239, 1, 2, 3]) * 255,
    ],
)  # fmt: skip
def test_what_no_agent_writes_is_refused(body: bytes) -> None:
    """Unknown flags, half a group, an address that is none, more than a record holds."""
    with pytest.raises(ValueError, match="interest"):
        Interest.from_body(body)


def test_too_many_groups_are_all() -> None:
    """A record is bounded; a host with more gets everything."""
    count = limits.MULTICAST_GROUP_BYTES_MAX // 4
    groups = {Ip(bytes([239, 1, *divmod(number, 256)])) for number in range(count + 1)}
    most = interest_of(7, set(sorted(groups)[:count]), wants_all=False)

    assert len(most.groups) == count
    assert not most.wants_all
    assert len(most.body()) <= limits.DECLARED_BODY_SIZE_MAX
    assert interest_of(7, groups, wants_all=False) == Interest(7, wants_all=True)


@pytest.mark.parametrize(
    "text",
    ["224.0.0.251", "224.0.0.5", "239.128.0.5", "225.0.0.1", "ff02::1", "ff02::fb", "ff02::1:2",
     "ff02::1:ff00:7", "ff05::fb", "10.0.0.1", "fd00::1"],
)  # fmt: skip
def test_link_local_groups_always_reach_all(text: str) -> None:
    """So do those that share a MAC with one."""
    assert not is_prunable(parse_ip(text))


@pytest.mark.parametrize("text", ["239.1.2.3", "224.0.1.1", "ff15::77:1234", "ff05::a:b:c"])
def test_other_groups_can_be_pruned(text: str) -> None:
    """Whatever their scope."""
    assert is_prunable(parse_ip(text))


def test_frames_go_to_the_hosts_with_receivers() -> None:
    """Not to those that have said they have none; a group nobody named is flooded."""
    interests = {
        OWN: Interest(7, wants_all=False, groups=(OTHER,)),
        TWO: Interest(7, wants_all=False, groups=(GROUP,)),
        THREE: Interest(7, wants_all=False),
    }

    assert dict(group_targets(OWN, VTEPS, interests)) == {
        mac_of(GROUP): {VTEPS[TWO]},
        mac_of(OTHER): frozenset(),
    }


def test_a_host_that_has_said_nothing_gets_all() -> None:
    """An older one, a dead one, one that wants all; if all do, the group is flooded."""
    here = {OWN: Interest(7, wants_all=False, groups=(GROUP,))}
    none = {**here, TWO: Interest(7, wants_all=False)}
    every = {**none, THREE: Interest(7, wants_all=True)}

    assert group_targets(OWN, VTEPS, here) == ()
    assert group_targets(OWN, VTEPS, none) == ((mac_of(GROUP), frozenset({VTEPS[THREE]})),)
    assert group_targets(OWN, VTEPS, every) == ((mac_of(GROUP), frozenset({VTEPS[THREE]})),)


def test_groups_with_one_mac_go_where_any_is_wanted() -> None:
    """A VXLAN device knows MACs alone."""
    twin = parse_ip("224.129.2.3")
    interests = {
        TWO: Interest(7, wants_all=False, groups=(GROUP,)),
        THREE: Interest(7, wants_all=False, groups=(twin,)),
    }

    assert mac_of(twin) == mac_of(GROUP)
    assert group_targets(OWN, VTEPS, interests) == ()


def test_a_group_of_very_many_hosts_is_flooded() -> None:
    """Rather than a row for each of them."""
    count = limits.MULTICAST_TARGETS_MAX + 1
    nodes = [NodeId(number.to_bytes(16, "big")) for number in range(1, count + 2)]
    vteps = {node: Ip(node[12:]) for node in nodes}
    interests = {node: Interest(7, wants_all=False, groups=(GROUP,)) for node in nodes[:count]}
    interests[nodes[-1]] = Interest(7, wants_all=False)
    fewer = {**interests, nodes[0]: Interest(7, wants_all=False)}

    assert group_targets(OWN, vteps, interests) == ()
    assert len(dict(group_targets(OWN, vteps, fewer))[mac_of(GROUP)]) == count - 1


def test_nobody_who_wants_a_group_is_left_out() -> None:
    """For random hosts and groups: a row leaves out only hosts that have said they want none."""
    rng = random.Random(11)
    groups = [Ip(bytes([239, rng.randrange(2) * 128, 2, number])) for number in range(8)]
    for _ in range(300):
        nodes = [NodeId(bytes([number]) * 16) for number in range(2, 2 + rng.randrange(1, 7))]
        vteps = {node: Ip(bytes([10, 0, 0, node[0]])) for node in nodes}
        interests = {
            node: Interest(7, rng.random() < 0.2, tuple(rng.sample(groups, rng.randrange(4))))
            for node in [OWN, *nodes]
            if rng.random() < 0.8
        }
        for mac, reached in group_targets(OWN, vteps, interests):
            for node in nodes:
                said = interests.get(node)
                is_wanted = said is None or said.wants_all or mac in map(mac_of, said.groups)
                assert is_wanted == (vteps[node] in reached)
