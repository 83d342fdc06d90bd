"""VLANs of a port: their text, the label that has them, and who meets whom."""

from __future__ import annotations

import pytest
from overlay.core.vlan.vlans import (
    NO_VLANS,
    Vlans,
    label_of_vlans,
    parse_vlans,
    port_mtu,
    vlans_of,
)
from overlay.errors import UsageError
from overlay.model import Endpoint, Mac, Vni, parse_ip


def endpoint(*labels: tuple[str, str]) -> Endpoint:
    """Return an endpoint with labels."""
    return Endpoint(bytes(8), Vni(7), "web", Mac(bytes(6)), (parse_ip("10.1.0.5"),), labels=labels)


@pytest.mark.parametrize(
    ("text", "vlans", "shown"),
    [
        ("10", Vlans(((10, 10),)), "10"),
        ("4094", Vlans(((4094, 4094),)), "4094"),
        ("10,20-30", Vlans(((10, 10), (20, 30)), is_trunk=True), "10,20-30"),
        (" 20-25, 26 ,7", Vlans(((7, 7), (20, 26)), is_trunk=True), "7,20-26"),
        ("10-10", Vlans(((10, 10),), is_trunk=True), "10-10"),
        ("2-4094", Vlans(((2, 4094),), is_trunk=True), "2-4094"),
    ],
)
def test_a_number_is_access_and_a_list_a_trunk(text: str, vlans: Vlans, shown: str) -> None:
    """The text reads back, and so does the label."""
    assert parse_vlans(text) == vlans
    assert str(vlans) == shown
    assert parse_vlans(shown) == vlans
    assert vlans_of(endpoint(("a", "b"), label_of_vlans(vlans))) == vlans


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "1", "4095", "1-5", "30-20", "10,", "10,,20", "-5", "5-", "10 20", "99999",
     ",".join(map(str, range(2, 42, 2)))],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    """With the option, and a hint that shows both forms."""
    with pytest.raises(UsageError) as caught:
        parse_vlans(text)

    assert caught.value.field == "vlan"
    assert "--vlan 10,20-30" in caught.value.hint


def test_ports_meet_in_a_common_vlan() -> None:
    """A port without VLANs meets those without only."""
    ten, trunk, other = (parse_vlans(text) for text in ("10", "10,20-30", "25-26"))

    assert ten.meets(ten)
    assert ten.meets(trunk)
    assert trunk.meets(other)
    assert not ten.meets(other)
    assert not NO_VLANS.meets(ten)
    assert not trunk.meets(NO_VLANS)
    assert NO_VLANS.meets(NO_VLANS)


def test_a_label_that_no_agent_writes_reaches_nobody() -> None:
    """Neither a port in a VLAN, nor one in none."""
    nowhere = vlans_of(endpoint(("overlayd.vlan", "all")))

    assert nowhere.is_any
    assert not nowhere.meets(NO_VLANS)
    assert not nowhere.meets(parse_vlans("2-4094"))
    assert vlans_of(endpoint()) == NO_VLANS


def test_the_tag_takes_room_from_the_packet() -> None:
    """So that tagged frames fit the underlay's packets as others do."""
    assert port_mtu(1450, parse_vlans("10")) == 1446
    assert port_mtu(1450, NO_VLANS) == 1450
