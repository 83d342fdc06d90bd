"""The programs at connect(2) get their tables in the expected bytes."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from overlay import limits
from overlay.core.services.maglev import slots_of
from overlay.core.services.values import Backend
from overlay.kernel.services import connect_program
from overlay.model import Ip, NodeId

NODE = NodeId(bytes(16))


def backends(count: int, size: int) -> list[Backend]:
    """Return backends whose weights are 1 and 3 by turns."""
    return [
        Backend(Ip(number.to_bytes(size, "big")), 8000 + number, NODE, 1 + number % 2 * 2)
        for number in range(1, count + 1)
    ]


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("count", [1, 2, limits.SERVICE_BACKENDS_MAX])
def test_a_ring_has_the_slots_of_the_table(count: int, size: int) -> None:
    """So weights count alike, whichever way a connection goes."""
    given = backends(count, size)
    ring = connect_program.ring_of(tuple(given))
    (slots,) = struct.unpack_from("=I", ring)
    found: Counter[tuple[bytes, int]] = Counter()
    for number in ring[4 : 4 + slots]:
        address, port = struct.unpack_from(">16sH", ring, 4 + 1024 + 20 * number)
        found[address[:size], port] += 1

    assert len(ring) == connect_program.RING_SIZE
    assert found == Counter((bytes(each.ip), each.port) for each in slots_of(given))


def test_a_note_is_a_key_without_the_namespace() -> None:
    """The program copies the one from the other."""
    for ip in (Ip(bytes([10, 32, 0, 9])), Ip(bytes(range(16)))):
        key = connect_program.key_of(77, ip, 8080)
        assert connect_program.noted(key[8:]) == (ip, 8080)
        assert struct.unpack_from("=Q", key) == (77,)
