"""The record by which a node publishes its WireGuard key."""

from __future__ import annotations

import pytest
from overlay.core.encryption.key_record import WireguardKey, current_key, key_record
from overlay.core.protocol.records import CustomRecord, Value, key_of
from overlay.model import Ip, parse_ip
from overlay.wire.codec.records import TAGS, decode_value, encode_value

ONE = WireguardKey(1, bytes(range(32)))
TWO = WireguardKey(2, bytes(range(32, 64)))


def test_a_key_survives_its_record() -> None:
    """It is published as a custom record, which every version of the wire format can read."""
    tag, fields = encode_value(key_record(ONE))

    assert tag == TAGS["name"]
    assert current_key([decode_value(tag, tuple(fields))]) == ONE
    assert key_of(key_record(ONE)) != key_of(key_record(TWO))


def test_the_lowest_epoch_is_in_use() -> None:
    """A node that is about to replace its key publishes the next one first."""
    assert current_key([key_record(TWO), key_record(ONE)]) == ONE
    assert current_key([key_record(TWO)]) == TWO


@pytest.mark.parametrize(
    "record",
    [
        CustomRecord("database", (Ip(bytes(16)), Ip(bytes(16)))),
        CustomRecord("wireguard-0", key_record(ONE).ips),
        CustomRecord("wireguard-9999999999", key_record(ONE).ips),
        CustomRecord("wireguard-1", (parse_ip("192.0.2.1"), Ip(bytes(16)))),
        CustomRecord("wireguard-1", (Ip(bytes(16)),)),
        CustomRecord("wireguard-1", (Ip(bytes(16)), Ip(bytes(16)))),
        CustomRecord("wireguard-1", (Ip(bytes(16)),) * 3),
    ],
)
def test_other_records_are_no_keys(record: Value) -> None:
    """Whatever a member writes, nothing fails."""
    assert current_key([record]) is None
