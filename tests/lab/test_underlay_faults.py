from __future__ import annotations

import pytest
from overlay.lab.underlay_faults import UnderlayFault

FAULTS = [
    UnderlayFault("vm1"),
    UnderlayFault("vm1", "vm2"),
    UnderlayFault("vm1", "vm2", one_way=True, only="vxlan"),
    UnderlayFault("vm3", only="gossip"),
    UnderlayFault("vm3", percent=5),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_read_from_its_own_words(fault: UnderlayFault) -> None:
    """The comment of a rule is all that is kept of it."""
    assert UnderlayFault.parse(fault.text) == fault


def test_words_of_others_are_no_fault() -> None:
    """A rule that somebody added has another comment."""
    with pytest.raises(ValueError, match="mine"):
        UnderlayFault.parse("mine")


def test_both_ways_are_two_rules() -> None:
    """One drops what comes from the host, one what goes to it."""
    both, one = (UnderlayFault("vm1", "vm2", one_way=way).rules() for way in (False, True))

    assert len(both) == 2
    assert len(one) == 1
    assert 'iifname "to-vm1" oifname "to-vm2"' in one[0]
