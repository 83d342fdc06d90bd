"""The authority in a text that a passphrase seals, for a backup outside the cluster.

Format: a JSON object with the cluster's id, the parameters of scrypt (RFC 7914), salt and nonce,
all of them authenticated, and the private key sealed by ChaCha20-Poly1305 (RFC 8439). The checksum
tells a damaged file from a wrong passphrase, the id another cluster's file. Binary values are
hexadecimal.

Owns: the format, its bounds, and the errors of a text that cannot be opened. Does not: read or
write files, or know where the passphrase comes from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from overlay import limits
from overlay.errors import ConflictError, ForbiddenError, OverlayError, UsageError
from overlay.wire.identity.authority import CLUSTER_ID_SIZE, KEY_SIZE, Authority, TrustAnchor

SCHEMA: Final = "overlayd.authority-export/v1"
_SCRYPT_N: Final = 2**16  # with r = 8: 64 MiB
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 2
# A file may demand at most 128 MiB and a few seconds of the host that opens it.
_SCRYPT_N_ALLOWED: Final = (2**14, 2**15, 2**16, 2**17)
_SCRYPT_P_MAX: Final = 4
_SALT_SIZE: Final = 16
_NONCE_SIZE: Final = 12
_TAG_SIZE: Final = 16
_FIELDS: Final = {"schema", "cluster", "n", "r", "p", "salt", "nonce", "sealed", "checksum"}
_NEW_COPY: Final = "Use another copy, or export the authority again on a host that holds it"


def seal_authority(
    authority: Authority, passphrase: str, random_bytes: Callable[[int], bytes]
) -> str:
    """Return the authority as a line that only the passphrase opens; takes half a second.

    Raises UsageError for a passphrase that is too short or too long.
    """
    if not limits.PASSPHRASE_LENGTH_MIN <= len(passphrase) <= limits.PASSPHRASE_LENGTH_MAX:
        raise UsageError(
            "the passphrase has an unsuitable length",
            why=f"it must have from {limits.PASSPHRASE_LENGTH_MIN} to "
            f"{limits.PASSPHRASE_LENGTH_MAX} characters, as it alone protects the cluster",
            hint="Use a longer one, such as six random words",
            field="passphrase",
        )
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "cluster": TrustAnchor(authority.anchor).cluster_id.hex(),
        "n": _SCRYPT_N,
        "r": _SCRYPT_R,
        "p": _SCRYPT_P,
        "salt": random_bytes(_SALT_SIZE).hex(),
        "nonce": random_bytes(_NONCE_SIZE).hex(),
    }
    box = _box(head, passphrase)
    nonce = bytes.fromhex(head["nonce"])
    sealed = box.encrypt(nonce, authority.to_bytes(), _canonical(head))
    body = head | {"sealed": sealed.hex()}
    return json.dumps(body | {"checksum": _checksum(body)})


def open_authority(text: str, passphrase: str, anchor: TrustAnchor) -> Authority:
    """Return the authority in an exported text; takes about half a second.

    Raises UsageError for a text that is not an export, OverlayError for a damaged one,
    ConflictError for another cluster's, ForbiddenError for a wrong passphrase.
    """
    body = _read(text)
    if body["cluster"] != anchor.cluster_id.hex():
        raise ConflictError(
            "the file contains the authority of another cluster",
            why=f"it is for cluster {body['cluster'][:8]}, this host is in "
            f"{anchor.cluster_id.hex()[:8]}",
            hint="Use this cluster's file; 'overlayd status' shows which cluster a host is in",
        )
    head = {name: value for name, value in body.items() if name not in ("sealed", "checksum")}
    try:
        private = _box(head, passphrase).decrypt(
            bytes.fromhex(body["nonce"]), bytes.fromhex(body["sealed"]), _canonical(head)
        )
    except InvalidTag as error:
        raise ForbiddenError(
            "the passphrase is wrong",
            why="it does not open the exported authority",
            hint="Use the passphrase that was given to: overlayd authority export",
        ) from error
    authority = Authority(private)
    if authority.anchor != anchor.public:
        _refuse_damaged("its key is not the one of its cluster")
    return authority


def _read(text: str) -> dict[str, Any]:
    """Return the checked fields of an exported text."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or body.get("schema") != SCHEMA:
        raise UsageError(
            "this is not an exported authority",
            why=f"it is not a JSON object whose schema is {SCHEMA}",
            hint="Name the file that this wrote: sudo overlayd authority export FILE",
        )
    unsealed = {name: value for name, value in body.items() if name != "checksum"}
    if set(body) != _FIELDS or body["checksum"] != _checksum(unsealed):
        _refuse_damaged("its checksum does not match its content")
    sizes = {
        "cluster": CLUSTER_ID_SIZE,
        "salt": _SALT_SIZE,
        "nonce": _NONCE_SIZE,
        "sealed": KEY_SIZE + _TAG_SIZE,
    }
    if not all(_is_hex(body[name], size) for name, size in sizes.items()):
        _refuse_damaged("one of its values has a wrong length")
    if not (
        body["n"] in _SCRYPT_N_ALLOWED
        and body["r"] == _SCRYPT_R
        and type(body["p"]) is int
        and 1 <= body["p"] <= _SCRYPT_P_MAX
    ):
        _refuse_damaged("it demands more memory or time than any file that overlayd writes")
    return body


def _is_hex(value: object, size: int) -> bool:
    digits = set("0123456789abcdef")
    return isinstance(value, str) and len(value) == 2 * size and set(value) <= digits


def _refuse_damaged(why: str) -> NoReturn:
    raise OverlayError("the exported authority is damaged", why=why, hint=_NEW_COPY)


def _box(head: Mapping[str, Any], passphrase: str) -> ChaCha20Poly1305:
    """Return the cipher for a passphrase; raises OverlayError if the host lacks memory."""
    scrypt = Scrypt(
        salt=bytes.fromhex(head["salt"]), length=32, n=head["n"], r=head["r"], p=head["p"]
    )
    try:
        return ChaCha20Poly1305(scrypt.derive(passphrase.encode()))
    except MemoryError as error:
        mebibytes = 128 * head["n"] * head["r"] // 2**20
        raise OverlayError(
            "not enough memory to derive a key from the passphrase",
            why=f"that takes {mebibytes} MiB",
            hint="Free memory on this host, or use another member",
        ) from error


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(fields)).hexdigest()
