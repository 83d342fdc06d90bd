"""The Noise handshake agrees with the framework's public test vectors."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from overlay.errors import RemoteError
from overlay.wire.handshake.noise import (
    FIRST_SIZE,
    SECOND_SIZE,
    Initiator,
    Responder,
    nonce,
)
from overlay.wire.identity.key_pair import KeyPair

VECTOR: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "docs/vectors/noise.json").read_text(encoding="utf-8")
)
MESSAGES = [
    (bytes.fromhex(each["payload"]), bytes.fromhex(each["ciphertext"]))
    for each in VECTOR["messages"]
]


def known(name: str) -> bytes:
    """Return a field of the vector."""
    return bytes.fromhex(VECTOR[name])


def sides() -> tuple[Initiator, Responder]:
    """Return both sides of the vector's handshake."""
    initiator = Initiator(
        KeyPair(known("init_static")),
        KeyPair(known("init_ephemeral")),
        known("init_remote_static"),
        known("init_prologue"),
    )
    return initiator, Responder(KeyPair(known("resp_static")), known("resp_prologue"))


def test_the_handshake_is_that_of_the_public_vector() -> None:
    """Both handshake messages and all transport messages are these bytes."""
    initiator, responder = sides()
    (first, first_sealed), (second, second_sealed), *transport = MESSAGES

    assert initiator.write(first) == first_sealed
    assert responder.read(first_sealed) == first
    assert responder.initiator_static == KeyPair(known("init_static")).public
    made, keys = responder.write(KeyPair(known("resp_ephemeral")), known("resp_psk"), second)
    assert made == second_sealed
    payload, others = initiator.read(second_sealed, known("init_psk"))
    assert payload == second
    for number, (plain, sealed) in enumerate(transport):
        sender, receiver = (others, keys) if number % 2 == 0 else (keys, others)
        assert sender.sending.encrypt(nonce(number // 2), plain, b"") == sealed
        assert receiver.receiving.decrypt(nonce(number // 2), sealed, b"") == plain


def test_sizes_are_those_of_the_pattern() -> None:
    """The first message costs 96 bytes and the second 48, beyond the payloads."""
    assert [len(sealed) - len(plain) for plain, sealed in MESSAGES[:2]] == [FIRST_SIZE, SECOND_SIZE]


@pytest.mark.parametrize("at", range(FIRST_SIZE))
def test_a_changed_first_message_is_refused(at: int) -> None:
    """Wherever a bit of it changes, it is not authentic."""
    _, responder = sides()
    changed = bytearray(MESSAGES[0][1])
    changed[at] ^= 1 << random.Random(at).randrange(7)  # X25519 ignores the last bit of a key

    with pytest.raises(RemoteError, match="unauthenticated"):
        responder.read(bytes(changed))


@pytest.mark.parametrize("at", range(len(MESSAGES[1][1])))
def test_a_forged_second_message_ends_nothing(at: int) -> None:
    """It is refused, and the authentic one is accepted after it."""
    initiator, _ = sides()
    initiator.write(MESSAGES[0][0])
    changed = bytearray(MESSAGES[1][1])
    changed[at] ^= 1

    with pytest.raises(RemoteError, match="unauthenticated"):
        initiator.read(bytes(changed), known("init_psk"))
    payload, _ = initiator.read(MESSAGES[1][1], known("init_psk"))
    assert payload == MESSAGES[1][0]


@pytest.mark.parametrize("low", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_of_low_order_is_refused(low: bytes) -> None:
    """It would make the shared secret predictable."""
    with pytest.raises(ValueError, match="shared key"):
        KeyPair(known("resp_static")).agree(low)
    _, responder = sides()
    with pytest.raises(RemoteError, match="unauthenticated"):
        responder.read(low + MESSAGES[0][1][32:])


def test_another_cluster_key_opens_no_second_message() -> None:
    """The pre-shared key is part of the handshake."""
    initiator, _ = sides()
    initiator.write(MESSAGES[0][0])

    with pytest.raises(RemoteError, match="unauthenticated"):
        initiator.read(MESSAGES[1][1], bytes(32))
