"""The record by which a node publishes its WireGuard key."""

from __future__ import annotations

import pytest
from overlay.core.encryption.key_record import WireguardKey, key_record, keys_of
from overlay.core.protocol.records import CustomRecord, Value, key_of
from overlay.model import Ip, parse_ip
from overlay.wire.codec.records import TAGS, decode_value, encode_value

ONE = WireguardKey(1, bytes(range(32)))
TWO = WireguardKey(2, bytes(range(32, 64)))


def test_a_key_survives_its_record() -> None:
    """It is published as a custom record, which every version of the wire format can read."""
    tag, fields = encode_value(key_record(ONE))

    assert tag == TAGS["name"]
    assert keys_of([decode_value(tag, tuple(fields))]) == (ONE,)
    assert key_of(key_record(ONE)) != key_of(key_record(TWO))


def test_a_slot_survives_its_record() -> None:
    """Agents of before know the first slot only, whose keys have the name that they always had."""
    assert keys_of([key_record(TWO._replace(slot=1))]) == (TWO._replace(slot=1),)
    assert key_record(ONE).name == "wireguard-1"


def test_the_lowest_epoch_is_in_use() -> None:
    """A node that is about to replace its key publishes the next one first."""
    following = TWO._replace(slot=1)
    assert keys_of([key_record(following), key_record(ONE)]) == (ONE, following)
    assert keys_of([key_record(following)]) == (following,)
    assert keys_of([key_record(TWO), key_record(ONE)]) == (ONE,)


@pytest.mark.parametrize(
    "record",
    [
        CustomRecord("database", (Ip(bytes(16)), Ip(bytes(16)))),
        CustomRecord("wireguard-0", key_record(ONE).ips),
        CustomRecord("wireguard3-1", key_record(ONE).ips),
        CustomRecord("wireguard-9999999999", key_record(ONE).ips),
        CustomRecord("wireguard-1", (parse_ip("192.0.2.1"), Ip(bytes(16)))),
        CustomRecord("wireguard-1", (Ip(bytes(16)),)),
        CustomRecord("wireguard-1", (Ip(bytes(16)), Ip(bytes(16)))),
        CustomRecord("wireguard-1", (Ip(bytes(16)),) * 3),
    ],
)
def test_other_records_are_no_keys(record: Value) -> None:
    """Whatever a member writes, nothing fails."""
    assert keys_of([record]) == ()
