"""The record by which a node publishes its WireGuard key.

An agent refuses a log with a record of unknown number, so a number of its own would cut off the
agents of before. They hold custom DNS records in every scope and never read those of the cluster's
scope, so this is one: its name says slot and epoch, its two IPv6 "addresses" are the halves of the
key. The first slot is nameless, as it was the only one of the agents of before.

Owns: that form. Does not: know whose record counts (`core.view`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.protocol.records import CustomRecord, Value
from overlay.model import Ip

KEY_SIZE: Final = 32
_SLOT_NAMES: Final = ("", "2")
_HALF: Final = KEY_SIZE // 2
_NAME: Final = re.compile(r"wireguard(2?)-([1-9][0-9]{0,9})", re.ASCII)


class WireguardKey(NamedTuple):
    """A node's public X25519 key for WireGuard, numbered from 1.

    A key belongs to one of two devices, its *slot*: a rotation moves all members to the other one.
    """

    epoch: int
    public_key: bytes
    slot: int = 0


def key_record(key: WireguardKey) -> CustomRecord:
    """Return the record of the cluster's scope that publishes a key."""
    halves = (Ip(key.public_key[:_HALF]), Ip(key.public_key[_HALF:]))
    return CustomRecord(f"wireguard{_SLOT_NAMES[key.slot]}-{key.epoch}", halves)


def keys_of(values: Iterable[Value]) -> tuple[WireguardKey, ...]:
    """Return a node's keys among its custom records of the cluster's scope, one for each slot.

    The first, of the lowest epoch, is in use; a node that replaces its key publishes the next one,
    in the other slot, before it withdraws the first.
    """
    found: dict[int, WireguardKey] = {}
    for key in sorted(filter(None, map(_decoded, values))):
        found.setdefault(key.slot, key)
    return tuple(sorted(found.values()))


def _decoded(value: Value) -> WireguardKey | None:
    """Return the key of a record; None for one of another purpose."""
    if not isinstance(value, CustomRecord):
        return None
    found = _NAME.fullmatch(value.name)
    if found is None or [len(ip) for ip in value.ips] != [_HALF, _HALF]:
        return None
    epoch, key = int(found[2]), b"".join(value.ips)
    if epoch > limits.WIREGUARD_EPOCH_MAX or not any(key):
        return None  # a device may refuse the zero key, and with it all peers of the message
    return WireguardKey(epoch, key, _SLOT_NAMES.index(found[1]))
