"""The kernel's filter accepts the frames of some addresses; run by an interpreter of its own."""

from __future__ import annotations

import pytest
from overlay.core.capture import classic_bpf
from overlay.core.capture.address_filter import with_addresses
from overlay.core.capture.classic_bpf import ALL, Instruction, Program
from overlay.model import Ip, parse_ip

A4, B4, C4 = (parse_ip(f"10.32.0.{n}") for n in (2, 3, 4))
A6, B6, C6 = (parse_ip(f"fd32::{n}") for n in (2, 3, 4))
NONE = (Instruction(classic_bpf.RETURN, 0, 0, 0),)
WIDTHS = {classic_bpf.LOAD_WORD: 4, classic_bpf.LOAD_HALF: 2, classic_bpf.LOAD_BYTE: 1}


def accepts(program: Program, frame: bytes) -> bool:
    """Run a program as the kernel does; a load beyond the end rejects the frame."""
    at, loaded = 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == classic_bpf.RETURN:
            return value > 0
        if code in WIDTHS:
            raw = frame[value : value + WIDTHS[code]]
            if len(raw) < WIDTHS[code]:
                return False
            loaded = int.from_bytes(raw, "big")
        elif code == classic_bpf.UNLESS_EQUAL:
            at += if_true if loaded == value else if_false
        else:
            assert code == classic_bpf.JUMP
            at += value


def ipv4(source: Ip, target: Ip) -> bytes:
    """Return a frame of UDP."""
    return bytes(12) + b"\x08\x00" + bytes([0x45]) + bytes(8) + b"\x11\0\0" + source + target


def arp(sender: Ip, asked: Ip) -> bytes:
    """Return a request."""
    return bytes(12) + b"\x08\x06" + bytes(14) + sender + bytes(6) + asked


def ipv6(source: Ip, target: Ip, header: int = 17, payload: bytes = b"") -> bytes:
    """Return a frame of IPv6."""
    return bytes(12) + b"\x86\xdd" + bytes(6) + bytes([header, 64]) + source + target + payload


def solicitation(asked: Ip, kind: int = 135) -> bytes:
    """Return the part of neighbor discovery behind the addresses."""
    return bytes([kind]) + bytes(7) + asked


GROUP = parse_ip("ff02::1:ff00:2")


@pytest.mark.parametrize(
    ("frame", "is_accepted"),
    [
        (ipv4(A4, B4), True),
        (ipv4(B4, A4), True),
        (ipv4(B4, C4), False),
        (arp(A4, B4), True),
        (arp(B4, A4), True),
        (arp(B4, C4), False),
        (ipv6(A6, B6), True),
        (ipv6(B6, A6), True),
        (ipv6(B6, C6), False),
        (ipv6(B6, GROUP, 58, solicitation(A6)), True),
        (ipv6(B6, GROUP, 58, solicitation(C6)), False),
        (ipv6(B6, GROUP, 58, solicitation(A6, kind=136)), False),
        (ipv6(B6, C6, 17, solicitation(A6)), False),
        (bytes(12) + b"\x88\xcc" + bytes(60), False),
        (bytes(8), False),
    ],
)
def test_frames_of_the_addresses_pass(frame: bytes, *, is_accepted: bool) -> None:
    """From them, to them, or asking for them; no others."""
    assert accepts(with_addresses((A4, A6), ALL), frame) is is_accepted


def test_the_other_program_decides_in_the_end() -> None:
    """It runs for what has passed; nothing else reaches it."""
    assert not accepts(with_addresses((A4, A6), NONE), ipv4(A4, B4))
    only_udp = (
        Instruction(classic_bpf.LOAD_BYTE, 0, 0, 23),
        Instruction(classic_bpf.UNLESS_EQUAL, 0, 1, 17),
        *ALL,
        *NONE,
    )
    assert accepts(with_addresses((A4,), only_udp), ipv4(A4, B4))
    assert not accepts(with_addresses((A4,), only_udp), ipv4(B4, C4))


def test_no_addresses_mean_no_frames() -> None:
    """An endpoint without one shows nothing to anybody."""
    assert not accepts(with_addresses((), ALL), ipv4(A4, B4))


def test_a_program_is_the_same_after_the_wire() -> None:
    """Half an instruction is refused."""
    program = with_addresses((A4, A6), ALL)
    assert classic_bpf.unpack(classic_bpf.pack(program)) == program
    with pytest.raises(ValueError, match="whole number"):
        classic_bpf.unpack(b"1234567")
