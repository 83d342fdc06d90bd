"""EtherTypes as text: what is read, written and refused."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.controls.ethertypes import (
    ethertypes_text,
    parse_ethertypes,
    stored_ethertypes,
)
from overlay.core.dataplane.state import ANY_ETHERTYPE
from overlay.errors import UsageError


@pytest.mark.parametrize(
    ("text", "types", "written"),
    [
        ("", (), ""),
        ("none", (), ""),
        ("ALL", (ANY_ETHERTYPE,), "all"),
        ("0x88f7", (0x88F7,), "0x88f7"),
        ("88F7, llc,0x0600", (4, 0x0600, 0x88F7), "llc,0x0600,0x88f7"),
        ("0x88f7,0x88f7", (0x88F7,), "0x88f7"),
    ],
)
def test_types_are_read_and_written(text: str, types: tuple[int, ...], written: str) -> None:
    """In any case and order; the text that is written reads as the same types."""
    assert parse_ethertypes(text, "f") == types
    assert ethertypes_text(types) == written
    assert parse_ethertypes(written, "f") == types


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ptp", "'ptp' is not an EtherType"),
        ("0x88f", "is not an EtherType"),
        ("0x88f7;llc", "is not an EtherType"),
        ("all,0x88f7", "'all' is not an EtherType"),
        ("0x0800", "it is IPv4"),
        ("0x86dd,llc", "it is IPv6"),
        ("0806", "it is ARP"),
        ("0x8100", "a VLAN tag"),
        ("0x88a8", "a VLAN tag"),
        ("0x88cc", "it is LLDP"),
        ("0x8809", "it is LACP"),
        ("0x05dc", "it is a length"),
        (",".join(f"{each:04x}" for each in range(0x9301, 0x9312)), "17 EtherTypes are too many"),
    ],
)
def test_others_are_refused_in_words(text: str, said: str) -> None:
    """With the field, so that the option is named; a label that has them allows nothing."""
    with pytest.raises(UsageError) as caught:
        parse_ethertypes(text, "allow_non_ip")
    assert said in f"{caught.value.what} {caught.value.why}"
    assert caught.value.field == "allow_non_ip"
    assert stored_ethertypes(text) == ()


def test_a_label_has_room_for_all_that_are_allowed() -> None:
    """Sixteen types are a label of less than 128 bytes."""
    types = parse_ethertypes(",".join(f"{each:04x}" for each in range(0x9301, 0x9311)), "f")
    assert len("overlayd.non-ip" + ethertypes_text(types)) <= 128
