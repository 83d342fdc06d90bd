"""The record by which a node publishes its WireGuard key.

An agent refuses a log with a record of unknown number, so a number of its own would cut off the
agents of before. They hold custom DNS records in every scope and never read those of the cluster's
scope, so this is one: its name says the epoch, its two IPv6 "addresses" are the halves of the key.

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
_HALF: Final = KEY_SIZE // 2
_NAME: Final = re.compile(r"wireguard-([1-9][0-9]{0,9})", re.ASCII)


class WireguardKey(NamedTuple):
    """A node's public X25519 key for WireGuard, numbered from 1."""

    epoch: int
    public_key: bytes


def key_record(key: WireguardKey) -> CustomRecord:
    """Return the record of the cluster's scope that publishes a key."""
    halves = (Ip(key.public_key[:_HALF]), Ip(key.public_key[_HALF:]))
    return CustomRecord(f"wireguard-{key.epoch}", halves)


def current_key(values: Iterable[Value]) -> WireguardKey | None:
    """Return the key in use among a node's custom records of the cluster's scope.

    The lowest epoch: a node that is about to replace its key publishes the next one first.
    """
    return min(filter(None, map(_decoded, values)), default=None)


def _decoded(value: Value) -> WireguardKey | None:
    """Return the key of a record; None for one of another purpose."""
    if not isinstance(value, CustomRecord):
        return None
    found = _NAME.fullmatch(value.name)
    if found is None or [len(ip) for ip in value.ips] != [_HALF, _HALF]:
        return None
    epoch, key = int(found[1]), b"".join(value.ips)
    if epoch > limits.WIREGUARD_EPOCH_MAX or not any(key):
        return None  # a device may refuse the zero key, and with it all peers of the message
    return WireguardKey(epoch, key)
