"""The golden vectors of docs/PROTOCOL.md are the bytes on the wire."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from overlay.wire.codec import datagram
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token
from overlay.wire.session.hello import read_hello
from overlay.wire.session.key_transfer import read_key_body
from overlay.wire.session.peers import Peer
from overlay.wire.session.sealer import derive_keys, open_box

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


def test_the_sealed_datagram_is_these_bytes() -> None:
    """The recipient opens the golden datagram with its own derived keys."""
    golden = {key: bytes.fromhex(value) for key, value in GOLDEN["sealed"].items()}
    one, two = VECTORS.identity(1), VECTORS.identity(2)
    peer = Peer(VECTORS.card(1), two.agree(one.seal_public))
    sessions = (golden["recipient_session"], golden["sender_session"])
    keys = derive_keys(two.node_id, peer, golden["secret"], *sessions)
    header = datagram.read_header(golden["datagram"])
    context = golden["cluster_id"] + two.node_id

    assert peer.shared == golden["shared"]
    assert header.pack() == golden["header"]
    assert (header.generation, header.number) == (0, 42)
    assert header.mark.to_bytes(2, "big") == golden["mark"]
    assert open_box(keys.receiving, header, context, golden["datagram"]) == golden["payload"]


def test_a_hello_is_these_bytes() -> None:
    """The golden body has the sender, its session and the keys it holds."""
    sender = VECTORS.card(1).node_id
    signer = KeySigner(VECTORS.identity(2), VECTORS.ANCHOR)

    assert read_hello(sender, signer, bytes.fromhex(GOLDEN["hello"])) == VECTORS.hello()


def test_a_transferred_key_is_these_bytes() -> None:
    """The golden body has the receiver's session and an authentic key."""
    session, key = read_key_body(bytes.fromhex(GOLDEN["key"]))

    assert session.hex() == GOLDEN["sealed"]["recipient_session"]
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
