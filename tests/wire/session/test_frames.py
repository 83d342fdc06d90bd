"""Frames: padded, so that a datagram's size says little of its content."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.errors import RemoteError
from overlay.wire.session.frames import HEAD_SIZE, FrameType, pack_frame, read_frame


@pytest.mark.parametrize(
    ("size", "padded"),
    [(0, 64), (1, 64), (64, 64), (65, 256), (256, 256), (257, 1152), (1152, 1152)],
)
def test_a_frame_has_one_of_three_sizes(size: int, padded: int) -> None:
    """The content is what it was, and fits a datagram."""
    content = bytes(range(256))[:1] * size
    frame = pack_frame(FrameType.PAYLOAD, content)

    assert len(frame) == HEAD_SIZE + padded
    assert read_frame(frame) == (FrameType.PAYLOAD, content)
    whole = limits.SESSION_HEADER_SIZE + len(frame) + limits.TAG_SIZE
    assert whole <= limits.DATAGRAM_SIZE_MAX


def test_the_heads_size_is_the_one_in_the_limits() -> None:
    """The bound of a payload follows from it."""
    assert HEAD_SIZE == limits.FRAME_HEAD_SIZE


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (b"", "malformed"),
        (b"\x01\x00\x00", "malformed"),
        (b"\x01\x00\x41" + bytes(64), "malformed"),
        (b"\x01\x00\x01" + bytes(65), "malformed"),
        (b"\x09\x00\x01" + bytes(64), "unknown-message"),
    ],
)
def test_anything_else_is_refused(plain: bytes, reason: str) -> None:
    """An honest peer writes neither another size nor another type."""
    with pytest.raises(RemoteError, match=reason):
        read_frame(plain)
