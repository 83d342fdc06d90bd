"""The golden vectors of docs/PROTOCOL.md are the bytes on the wire."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from overlay.wire.codec.datagram import UdpEndpoint
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.codec.session_header import read_data_header, read_response_header
from overlay.wire.handshake.cookies import CookieJar, has_mac1, has_mac2, receiver_key
from overlay.wire.handshake.hello import read_join, read_statement
from overlay.wire.handshake.key_transfer import read_key_body
from overlay.wire.handshake.noise import Responder, nonce
from overlay.wire.identity.key_pair import KeyPair
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token
from overlay.wire.session.frames import FrameType, read_frame

ROOT = Path(__file__).parents[3]
GOLDEN: dict[str, Any] = json.loads((ROOT / "docs/vectors/wire.json").read_text())


def script() -> ModuleType:
    """Return scripts/vectors.py, which defines the meaning of each vector."""
    spec = importlib.util.spec_from_file_location("vectors", ROOT / "scripts/vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VECTORS = script()


@pytest.mark.parametrize("name", sorted(GOLDEN["messages"]))
def test_each_message_is_these_bytes(name: str) -> None:
    """Encoding gives the golden bytes and decoding them gives the message."""
    codec = MsgpackCodec()
    message = VECTORS.messages()[name]

    assert codec.encode(message).hex() == GOLDEN["messages"][name]
    assert codec.decode(bytes.fromhex(GOLDEN["messages"][name])) == [message]


def test_cards_are_these_bytes() -> None:
    """A golden card decodes to its node, and its signature is valid."""
    codec = MsgpackCodec()
    for name, golden in GOLDEN["cards"].items():
        raw, signature = bytes.fromhex(golden["raw"]), bytes.fromhex(golden["signature"])
        card = codec.decode_card(raw, signature)

        assert (card.name, card.node_id.hex()) == (name, golden["node_id"])
        assert KeySigner(VECTORS.identity(1), VECTORS.ANCHOR).verify_card(card)


def test_the_session_is_these_bytes() -> None:
    """The recipient answers the golden hello with the golden response, and opens the data."""
    golden = GOLDEN["session"]
    said = {name: bytes.fromhex(each) for name, each in golden["datagrams"].items()}
    private, ephemeral = (
        bytes.fromhex(golden[name][1]) for name in ("seal_private", "ephemeral_private")
    )
    two = VECTORS.identity(2)
    assert KeyPair(private).public == two.seal_public
    prologue = b"overlayd\x02" + bytes.fromhex(golden["cluster_id"])
    responder = Responder(KeyPair(private), prologue)
    statement = responder.read(said["hello"][8:-32])
    answer = bytes.fromhex(golden["answer"])
    secret = bytes.fromhex(golden["cluster_key"])
    message, keys = responder.write(KeyPair(ephemeral), secret, answer)
    header = read_response_header(said["response"])

    assert statement.hex() == golden["statement"]
    assert responder.initiator_static == VECTORS.identity(1).seal_public
    assert said["response"][16:] == message
    assert (header.sender_index, header.receiver_index) == tuple(golden["indexes"][::-1])
    assert header.key == (0, int.from_bytes(bytes.fromhex(golden["mark"])))
    index, counter = read_data_header(said["data"])
    frame = keys.receiving.decrypt(nonce(counter), said["data"][16:], said["data"][:16])
    assert (index, counter, frame.hex()) == (golden["indexes"][1], 42, golden["frame"])
    assert read_frame(frame) == (FrameType.PAYLOAD, bytes.fromhex(golden["payload"]))


def test_macs_and_cookie_are_these_bytes() -> None:
    """Both macs of the golden hello, and the cookie that its sender gets for it."""
    golden = GOLDEN["session"]
    said = {name: bytes.fromhex(each) for name, each in golden["datagrams"].items()}
    key = receiver_key(VECTORS.identity(2).seal_public)
    place = UdpEndpoint(VECTORS.address(2), 7948)
    jar = CookieJar()

    assert has_mac1(key, said["hello"])
    assert said["hello"][-16:] == bytes(16)
    assert has_mac1(receiver_key(bytes.fromhex(golden["cluster_id"])), said["join"])
    assert jar.protect(place, key, said["hello"][:-32], 0.0) == said["hello"]
    assert jar.accept(place, said["cookie"], 0.0)
    again = jar.protect(place, key, said["hello"][:-32], 0.0)
    assert has_mac2(bytes.fromhex(golden["cookie"]), again)


def test_statements_are_these_bytes() -> None:
    """The golden bodies have the senders, their processes and the keys they hold."""
    golden = GOLDEN["session"]
    signer = KeySigner(VECTORS.identity(3), VECTORS.ANCHOR)
    for number, name in ((1, "statement"), (2, "answer")):
        statement, is_banned = read_statement(signer, bytes.fromhex(golden[name]), None)

        assert (statement.card, is_banned) == (VECTORS.card(number), False)
        assert statement.process.hex() == golden["processes"][number - 1]
        assert statement.number == golden["indexes"][number - 1]
        assert statement.held == {VECTORS.cluster_key().id}
    join = read_join(signer, bytes.fromhex(golden["join"]), None)
    assert (join.card, join.echo) == (VECTORS.card(1), bytes(8))


def test_a_transferred_key_is_these_bytes() -> None:
    """The golden content is an authentic key."""
    key = read_key_body(bytes.fromhex(GOLDEN["key"]))

    assert key == VECTORS.cluster_key()
    assert VECTORS.ANCHOR.verify_key(key)


def test_the_token_is_this_text() -> None:
    """A token's text follows from its content."""
    golden = GOLDEN["token"]
    token = Token.parse(golden["text"])

    assert str(token) == golden["text"]
    found = (token.cluster_id, token.join_key, token.ticket, token.verifier)
    keys = ("cluster_id", "door", "ticket", "verifier")
    assert [value.hex() for value in found] == [golden[key] for key in keys]


def test_the_vectors_are_what_the_script_writes() -> None:
    """The golden file is not edited by hand, and no format change is missed."""
    assert VECTORS.vectors() == GOLDEN
