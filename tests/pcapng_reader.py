"""Read pcapng files (draft-ietf-opsawg-pcapng) independently of what writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class ReadInterface:
    """An interface description block."""

    name: str
    description: str
    comment: str
    mac: bytes
    resolution: int
    expression: str


@dataclass
class ReadPacket:
    """An enhanced packet block."""

    interface: int
    time_ns: int
    size: int
    data: bytes
    comment: str
    direction: str


@dataclass
class ReadFile:
    """A file of one section."""

    comment: str = ""
    application: str = ""
    system: str = ""
    interfaces: list[ReadInterface] = field(default_factory=list)
    packets: list[ReadPacket] = field(default_factory=list)
    statistics: list[tuple[int, int, int, str]] = field(default_factory=list)


def read(raw: bytes) -> ReadFile:
    """Return what a file holds; fails on anything malformed."""
    found = ReadFile()
    for number, (kind, body) in enumerate(blocks(raw)):
        assert (kind == 0x0A0D0D0A) == (number == 0), "a section begins the file"
        if kind == 0x0A0D0D0A:
            magic, major, minor, _ = struct.unpack_from("<IHHq", body)
            assert (magic, major, minor) == (0x1A2B3C4D, 1, 0)
            chosen = options(body[16:])
            found.comment, found.system, found.application = (
                chosen.get(code, b"").decode() for code in (1, 3, 4)
            )
        elif kind == 1:
            link, _, _ = struct.unpack_from("<HHI", body)
            assert link == 1, "Ethernet"
            chosen = options(body[8:])
            found.interfaces.append(
                ReadInterface(
                    chosen[2].decode(),
                    chosen[3].decode(),
                    chosen.get(1, b"").decode(),
                    chosen[6],
                    chosen[9][0],
                    chosen.get(11, b"\0")[1:].decode(),
                )
            )
        elif kind == 6:
            found.packets.append(packet(body))
            assert found.packets[-1].interface < len(found.interfaces), "it is described before"
        elif kind == 5:
            (interface,) = struct.unpack_from("<I", body)
            chosen = options(body[12:])
            received, dropped = (struct.unpack("<Q", chosen[code])[0] for code in (4, 5))
            text = chosen.get(1, b"").decode()
            found.statistics.append((interface, received, dropped, text))
        else:
            raise AssertionError(f"block {kind}")
    return found


def blocks(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of each block."""
    at = 0
    while at < len(raw):
        kind, size = struct.unpack_from("<II", raw, at)
        assert size % 4 == 0
        (again,) = struct.unpack_from("<I", raw, at + size - 4)
        assert again == size
        yield kind, raw[at + 8 : at + size - 4]
        at += size


def packet(body: bytes) -> ReadPacket:
    """Return an enhanced packet block."""
    interface, high, low, captured, size = struct.unpack_from("<IIIII", body)
    end = 20 + captured + -captured % 4
    chosen = options(body[end:])
    (flags,) = struct.unpack("<I", chosen[2])
    return ReadPacket(
        interface,
        (high << 32) + low,
        size,
        body[20 : 20 + captured],
        chosen[1].decode(),
        {1: "in", 2: "out"}[flags & 3],
    )


def options(raw: bytes) -> dict[int, bytes]:
    """Return options by code."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(raw):
        code, size = struct.unpack_from("<HH", raw, at)
        if code == 0:
            assert at + 4 == len(raw), "it ends there"
            break
        found[code] = raw[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4
    return found
