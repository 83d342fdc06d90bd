"""The codec accepts valid input only, and drops the rest with a reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlay import limits
from overlay.core.protocol.messages import Ping
from overlay.errors import RemoteError, UsageError
from overlay.model import Card, node_id_of, parse_ip
from overlay.wire.codec.cards import pack_card, unpack_card
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.codec.segments import unpack_segment
from overlay.wire.identity.token import Token

CODEC = MsgpackCodec()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40)
    | st.text(max_size=10) | st.floats(),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=1300))
def test_random_bytes_raise_only_a_named_drop(raw: bytes) -> None:
    """No decoder raises anything but its own error, whatever the bytes."""
    for decode in (CODEC.decode, lambda b: unpack_card(b, b""), lambda b: unpack_segment(b, b"")):
        with contextlib.suppress(RemoteError):
            decode(raw)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 25), st.lists(ANYTHING, max_size=8))
def test_random_shapes_raise_only_a_named_drop(number: int, fields: list[object]) -> None:
    """A msgpack array of the wrong shape is dropped like random bytes."""
    raw = msgpack.packb([number, *fields])
    decoded = []
    with contextlib.suppress(RemoteError):
        decoded = CODEC.decode(raw[: limits.PAYLOAD_SIZE_MAX])

    for message in decoded:
        assert CODEC.decode(CODEC.encode(message)) == [message]


@pytest.mark.parametrize(
    ("address", "is_accepted"),
    [
        ("192.168.56.11", True),
        ("10.255.255.255", True),  # not every network ends at a byte
        ("fd56::11", True),
        ("fe80::11", True),
        ("0.0.0.1", False),
        ("224.0.0.5", False),
        ("239.1.2.3", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("ff02::1", False),
        ("::ffff:192.168.56.11", False),
    ],
)
def test_a_cards_address_is_one_of_a_host(address: str, *, is_accepted: bool) -> None:
    """Whatever is sent to a member reaches one host: no group, and not all hosts of a segment."""
    card = Card(
        node_id_of(b"k" * 32),
        "vm1",
        b"k" * 32,
        b"s" * 32,
        parse_ip(address),
        7948,
        1,
        1500,
        "0.4.0",
    )
    with contextlib.nullcontext() if is_accepted else pytest.raises(RemoteError, match="malformed"):
        assert unpack_card(pack_card(card), b"") == card


@pytest.mark.parametrize(
    "raw",
    [
        msgpack.packb([1, True, bytes(16), 0]),  # a boolean is not an integer
        msgpack.packb([1, 1, bytes(15), 0]),  # a root has 16 bytes
        msgpack.packb([1, 1, bytes(16), 1001]),  # loss is in permille
        msgpack.packb([1, 1.0, bytes(16), 0]),  # no floats
        msgpack.packb([1, 1, bytes(16)]),  # a field is missing
        msgpack.packb([1, 1, bytes(16), 0, 0]),  # one too many
        msgpack.packb([99]),  # no such message
        msgpack.packb({"a": 1}),  # no maps
        CODEC.encode(Ping(1, 1))[:-1],  # cut short
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion items in five bytes
        b"\x91" * 500,  # nested deeply
        b"\xc1",  # never used in msgpack
    ],
)
def test_invalid_payloads_are_refused(raw: bytes) -> None:
    """Each near miss is dropped."""
    with pytest.raises(RemoteError):
        CODEC.decode(raw)


def test_messages_stand_back_to_back() -> None:
    """A payload is any number of messages, or none."""
    assert CODEC.decode(b"") == []
    assert CODEC.decode(CODEC.encode(Ping(1, 2)) * 3) == [Ping(1, 2)] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "", "empty"),
        (lambda _: "hello", "not an overlayd token"),
        (lambda text: text[:-5], "cut short"),
        (lambda text: text + "A", "too long"),
        (lambda text: text[:10] + ("A" if text[10] != "A" else "B") + text[11:], "mistyped"),
        (lambda text: text[:10] + "!" + text[11:], "invalid characters"),
    ],
)
def test_errors_about_tokens_do_not_repeat_them(change: Callable[[str], str], message: str) -> None:
    """Each kind of invalid token has its message, and none shows the secret."""
    text = str(Token(b"a" * 32, b"token-id", b"s" * 16, 7948, 4789))
    with pytest.raises(UsageError, match=message) as caught:
        Token.parse(change(text))

    assert text[6:30] not in str(caught.value)
    assert "sss" not in repr(Token.parse(text))


def test_white_space_around_a_token_does_not_matter() -> None:
    """A token read from a file ends in a newline."""
    token = Token(b"a" * 32, b"token-id", b"s" * 16, 7948, 4789)

    assert Token.parse(f"  {token}\n") == token
