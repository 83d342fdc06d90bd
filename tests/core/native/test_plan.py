"""The programs on the underlay's interfaces get the members, networks and ways."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.dataplane.underlay_filter import ArrivalPath
from overlay.core.native.plan import NativeInput, plan_native, state_texts
from overlay.core.native.state import NativeState, NativeVni
from overlay.model import Ip, Vni, parse_ip

OWN, MEMBER, OTHER = (parse_ip(f"192.168.56.{number}") for number in (10, 11, 12))
SIX = parse_ip("fd00::11")
ETH1, ETH2, TUNNEL = 2, 3, 4
GIVEN = NativeInput(
    OWN,
    frozenset({MEMBER}),
    frozenset({ArrivalPath(ETH1, MEMBER)}),
    frozenset({ETH1, ETH2}),
    {Vni(100): 17, Vni(101): 18},
)


def paths(*pairs: tuple[int, Ip]) -> frozenset[ArrivalPath]:
    """Return paths of members."""
    return frozenset(ArrivalPath(*pair) for pair in pairs)


def test_a_members_frames_lead_to_their_shortcut() -> None:
    """By the interface that leads back to it, to this host's VTEP, by VNI."""
    assert plan_native(GIVEN) == NativeState(
        frozenset({ETH1}),
        frozenset({OWN}),
        paths((ETH1, MEMBER)),
        frozenset({NativeVni(Vni(100), 17), NativeVni(Vni(101), 18)}),
    )


def test_only_members_of_the_same_family_count() -> None:
    """A former member's path is left out, as is one of another underlay."""
    given = replace(
        GIVEN,
        members=frozenset({MEMBER, SIX}),
        paths=paths((ETH1, MEMBER), (ETH1, OTHER), (ETH1, SIX)),
    )
    assert plan_native(given).paths == paths((ETH1, MEMBER))


def test_every_interface_of_a_member_has_the_program() -> None:
    """Except those that can't run it: their packets take the VXLAN device."""
    several = paths((ETH1, MEMBER), (ETH2, MEMBER), (TUNNEL, MEMBER))
    planned = plan_native(replace(GIVEN, paths=several))

    assert planned.interfaces == {ETH1, ETH2}
    assert planned.paths == paths((ETH1, MEMBER), (ETH2, MEMBER))


def test_nothing_runs_for_nothing() -> None:
    """Without a shortcut, or without a member, no interface has a program."""
    assert plan_native(replace(GIVEN, shortcuts={})) == NativeState()
    assert plan_native(replace(GIVEN, members=frozenset())) == NativeState()
    assert plan_native(replace(GIVEN, usable=frozenset())) == NativeState()


def test_a_difference_is_shown_in_words() -> None:
    """`overlayd verify` prints what is missing, and what is too much."""
    planned = plan_native(GIVEN)
    without_member = replace(planned, paths=frozenset(), interfaces=frozenset())

    assert [*state_texts(planned.without(without_member), {ETH1: "eth1"})] == [
        "program on eth1",
        "member 192.168.56.11 by eth1",
    ]
    assert planned.without(planned) == NativeState()
    assert planned.common(without_member) == without_member
