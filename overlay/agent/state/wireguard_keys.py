"""The private WireGuard keys that a node keeps on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from overlay.agent.state.table import single


@dataclass(frozen=True, slots=True)
class StoredWireguardKey:
    """A private key of this node for WireGuard, made at random, and its epoch."""

    epoch: int
    private: bytes = field(repr=False)
    slot: int = 0  # of its device
    made_s: float = 0.0  # Unix time; 0: by an agent that wrote down none


class StoredWireguardKeys(NamedTuple):
    """The key in use, and during a rotation the next one, or the one before."""

    current: StoredWireguardKey
    next: StoredWireguardKey | None = None
    retired: StoredWireguardKey | None = None


def _encode(keys: StoredWireguardKeys) -> dict[str, Any]:
    # The key in use is written as before, so that it is also read by an agent without rotation.
    others = {"next": keys.next, "retired": keys.retired}
    found = _encode_key(keys.current)
    return found | {name: _encode_key(key) for name, key in others.items() if key is not None}


def _encode_key(key: StoredWireguardKey) -> dict[str, Any]:
    found: dict[str, Any] = {"epoch": key.epoch, "private": key.private.hex()}
    if key.slot or key.made_s:
        found |= {"slot": key.slot, "made": key.made_s}
    return found


def _decode(value: dict[str, Any]) -> StoredWireguardKeys:
    others = {name: _decode_key(value[name]) for name in ("next", "retired") if name in value}
    return StoredWireguardKeys(_decode_key(value), **others)


def _decode_key(value: dict[str, Any]) -> StoredWireguardKey:
    private = bytes.fromhex(value["private"])
    return StoredWireguardKey(
        value["epoch"], private, value.get("slot", 0), value.get("made", 0.0)
    )  # fmt: skip


WIREGUARD = single("wireguard", _encode, _decode)
