"""The result of opening a datagram: its content, replies, and why it was dropped.

Owns: these values, and what each kind of frame adds to them. Does not: open anything (`sessions`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from overlay.errors import RemoteError
from overlay.model import Card, NodeId
from overlay.wire.codec.datagram import Datagram
from overlay.wire.handshake.hello import BAD_CARD, read_duplicate
from overlay.wire.handshake.key_transfer import UNWARRANTED_KEY, read_key_body
from overlay.wire.identity.keyring import ClusterKey
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.frames import FrameType

NO_SESSION = "no-session"
LATE_RESPONSE = "late-response"
REPLAYED = "replayed"
COOKIE_SENT = "cookie-sent"
NO_COOKIE_ASKED = "cookie-not-asked"
NOBODY = NodeId(bytes(16))


@dataclass(frozen=True, slots=True)
class OpenedDatagram:
    """The content of an authenticated datagram."""

    sender: NodeId  # NOBODY where nobody is proven
    payload: bytes | None = None
    card: Card | None = None  # of a peer whose session was just established
    key: ClusterKey | None = None  # sent by a member, signed by the authority
    duplicate: Card | None = None  # of another host with the sender's identity, or ours
    dropped: str = ""  # the reason why there is no payload, although there are replies
    is_banned: bool = False  # the sender reports that this node is forgotten, and ignored
    replies: tuple[Datagram, ...] = ()


def with_frame(
    opened: OpenedDatagram, kind: FrameType, content: bytes, signer: KeySigner, own: NodeId
) -> OpenedDatagram:
    """Return what was opened, with the content of its frame; raises RemoteError if invalid."""
    match kind:
        case FrameType.PAYLOAD:
            return replace(opened, payload=content)
        case FrameType.KEY:
            key = read_key_body(content)
            if not signer.anchor.verify_key(key):
                raise RemoteError(UNWARRANTED_KEY)
            return replace(opened, key=key)
        case FrameType.DUPLICATE:
            other = read_duplicate(content)
            if other.node_id != own or not signer.is_signed_by_subject(other):
                raise RemoteError(BAD_CARD)
            return replace(opened, duplicate=other)
        case FrameType.CONFIRM:
            return opened
