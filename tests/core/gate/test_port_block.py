"""The ports to masquerade with are a large piece of those that the host does not use."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.gate.host_view import HostView
from overlay.core.gate.port_block import USUAL_BLOCK, PortBlock, block_obstacle, choose_block

HOST = HostView()
ALL_CHOSEN = replace(HOST, own_ports=(1024, 65_535))


@pytest.mark.parametrize(
    ("used", "wanted"),
    [
        ((), USUAL_BLOCK),
        ((22, 80, 8080, 9100), USUAL_BLOCK),
        ((27_017,), PortBlock(10_240, 26_623)),
        ((30_000, 32_767), PortBlock(13_312, 29_695)),
        ((8080, 20_000), PortBlock(20_480, 32_767)),
        (range(1024, 32_768, 2000), PortBlock(61_440, 65_535)),
        (range(1024, 65_536, 2000), None),
    ],
)
def test_ports_at_which_programs_listen_are_left_out(
    used: Collection[int], wanted: PortBlock | None
) -> None:
    """As few ports as needed around each."""
    assert choose_block(HOST, used) == wanted


def test_ports_that_the_host_chooses_from_are_left_out() -> None:
    """Unless they are reserved: the kernel does not choose these."""
    assert choose_block(replace(HOST, own_ports=(20_000, 65_535)), ()) == PortBlock(3072, 19_455)
    assert choose_block(ALL_CHOSEN, ()) is None
    reserved = replace(ALL_CHOSEN, reserved_ports=frozenset(range(40_960, 49_152)))
    assert choose_block(reserved, ()) == PortBlock(40_960, 49_151)
    assert block_obstacle(reserved, PortBlock(40_960, 49_151)) == ""


def test_why_there_is_no_block() -> None:
    """A range that was changed later, and too few free ports."""
    assert block_obstacle(HOST, USUAL_BLOCK) == ""
    why = block_obstacle(replace(HOST, own_ports=(32_767, 60_999)), USUAL_BLOCK)
    assert why == "the host's own connections have ports 32767 to 60999, the gate's 16384 to 32767"
    assert block_obstacle(ALL_CHOSEN, None).startswith("no 4096 ports in one piece are free: ")


@given(
    own=st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)),
    used=st.frozensets(st.integers(1, 65_535), max_size=40),
    reserved=st.tuples(st.integers(1, 65_535), st.integers(0, 20_000)),
)
def test_a_block_has_only_free_ports(
    own: tuple[int, int], used: frozenset[int], reserved: tuple[int, int]
) -> None:
    """Whatever the host has: and it is no smaller than stated, no larger than a quarter."""
    first, count = reserved
    kept = frozenset(range(first, min(first + count, 65_536)))
    host = HostView(own_ports=(min(own), max(own)), reserved_ports=kept)
    block = choose_block(host, used)
    if block is not None:
        ports = set(range(block.first, block.last + 1))
        assert limits.GATE_PORTS_MIN <= len(ports) <= limits.GATE_PORTS_MAX
        assert ports.isdisjoint(used)
        assert not {port for port in ports if min(own) <= port <= max(own)} - kept
        assert block.first >= 1024
        assert block.last < 65_536
        assert block_obstacle(host, block) == ""
