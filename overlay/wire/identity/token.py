"""The join token, which a host needs to be admitted.

`ovt1.` and base64url of: trust anchor 32, token id 8, secret 16, gossip port 2, VXLAN port 2,
checksum 4 (bytes). The cluster's id follows from the anchor; the ports are the cluster's, chosen
by its first host; the checksum detects typing errors locally, where a clear message is possible.
The secret protects the join handshake only: no key of the members is derived from it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass, field

from overlay import limits
from overlay.errors import UsageError
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import derive_bytes

SECRET_SIZE = 16
_PREFIX = "ovt1."
_LAYOUT = struct.Struct(f"!32s{limits.TOKEN_ID_SIZE}s{SECRET_SIZE}sHH")
_CHECKSUM_SIZE = 4
_HINT = (
    "'overlayd token show' on a host that holds the cluster's authority prints one; it is one "
    "line without spaces"
)


@dataclass(frozen=True, slots=True)
class Token:
    """A cluster's trust anchor and ports, and the secret of one token."""

    anchor: bytes
    token_id: bytes
    secret: bytes = field(repr=False)
    gossip_port: int
    vxlan_port: int

    @property
    def cluster_id(self) -> bytes:
        """The cluster's id, 16 bytes."""
        return TrustAnchor(self.anchor).cluster_id

    @property
    def join_key(self) -> bytes:
        """The key of the first messages with any member: every member has it."""
        return derive_bytes(self.secret, self.token_id, b"overlayd/1 door")

    @property
    def ticket(self) -> bytes:
        """The secret against which a holder admits: no member has it."""
        return derive_bytes(self.secret, self.token_id, b"overlayd/1 ticket")

    @property
    def verifier(self) -> bytes:
        """The hash by which members recognise the ticket."""
        return verifier_of(self.ticket)

    def __str__(self) -> str:
        body = _LAYOUT.pack(
            self.anchor, self.token_id, self.secret, self.gossip_port, self.vxlan_port
        )
        return _PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Token:
        """Return the token in a text; the UsageError never repeats the text."""
        stripped = text.strip()
        if not stripped:
            raise UsageError("the token is empty", hint=_HINT)
        if not stripped.startswith(_PREFIX):
            raise UsageError("not an overlayd token", why=f"it does not begin with {_PREFIX}",
                             hint=_HINT)  # fmt: skip
        encoded = stripped.removeprefix(_PREFIX)
        size = _LAYOUT.size + _CHECKSUM_SIZE
        expected = -(-size * 4 // 3)
        if len(encoded) != expected:
            relation = "cut short" if len(encoded) < expected else "too long"
            raise UsageError(
                f"the token is {relation}",
                why=f"it has {len(stripped)} characters instead of {len(_PREFIX) + expected}",
                hint=_HINT,
            )
        try:
            raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("the token contains invalid characters", hint=_HINT) from None
        body, checksum = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
        if _checksum(body) != checksum:
            raise UsageError("the token is mistyped", why="its checksum does not match", hint=_HINT)
        token = cls(*_LAYOUT.unpack(body))
        if not token.gossip_port or not token.vxlan_port:
            raise UsageError("the token contains port 0", hint=_HINT)
        return token


def verifier_of(ticket: bytes) -> bytes:
    """Return the hash by which a ticket is recognised."""
    return hashlib.sha256(ticket).digest()


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_CHECKSUM_SIZE, person=b"ovltoken").digest()
