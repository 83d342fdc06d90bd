"""The join token: what a host must have to be let in.

`ovt1.` and base64url of: cluster id 16, secret 32, gossip port 2, VXLAN port 2, checksum 4. The
ports are the cluster's, fixed by its first host; the checksum finds typing errors here, where a
clear message is possible, for a wrong secret only ever meets silence.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

from overlay.errors import UsageError

_PREFIX = "ovt1."
_LAYOUT = struct.Struct("!16s32sHH")
_CHECKSUM_SIZE = 4
_HINT = "'overlayd token show' on a member prints it again; it is one line without spaces"


@dataclass(frozen=True, slots=True)
class Token:
    """A cluster's id, secret and ports."""

    cluster_id: bytes
    secret: bytes
    gossip_port: int
    vxlan_port: int

    def __str__(self) -> str:
        body = _LAYOUT.pack(self.cluster_id, self.secret, self.gossip_port, self.vxlan_port)
        return _PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Token(cluster_id={self.cluster_id.hex()}, secret hidden)"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Return the token of a text; raises UsageError that never repeats the text."""
        stripped = text.strip()
        if not stripped:
            raise UsageError("the token is empty", hint=_HINT)
        if not stripped.startswith(_PREFIX):
            raise UsageError("that is no overlayd token", why=f"it does not begin with {_PREFIX}",
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
            raise UsageError("the token has characters that no token has", hint=_HINT) from None
        body, checksum = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
        if _checksum(body) != checksum:
            raise UsageError("the token is mistyped", why="its checksum does not match", hint=_HINT)
        token = cls(*_LAYOUT.unpack(body))
        if not token.gossip_port or not token.vxlan_port:
            raise UsageError("the token names port 0", hint=_HINT)
        return token


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2s(body, digest_size=_CHECKSUM_SIZE, person=b"ovltoken").digest()
