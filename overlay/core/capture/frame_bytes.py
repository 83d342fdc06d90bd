"""Read numbers out of a frame that may be cut off anywhere."""

from __future__ import annotations


class CutError(Exception):
    """The frame ends before a field does."""


class FrameBytes:
    """The bytes of a frame; every read raises CutError beyond its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def octets(self, at: int, count: int) -> bytes:
        """Return so many bytes."""
        if at + count > len(self._data):
            raise CutError
        return self._data[at : at + count]

    def byte(self, at: int) -> int:
        """Return one byte."""
        return self.octets(at, 1)[0]

    def half(self, at: int) -> int:
        """Return a number of two bytes."""
        return int.from_bytes(self.octets(at, 2), "big")
