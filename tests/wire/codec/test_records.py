"""Records read back as written, and invalid ones are refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from overlay import limits
from overlay.core.protocol.records import CustomRecord, Value
from overlay.errors import RemoteError
from overlay.model import HOST_LABEL, Endpoint, Network, NodeId, Subnet, Vni, mac_for, parse_ip
from overlay.wire.codec.records import decode_value, encode_value

CREATOR = NodeId(b"c" * 16)
ADDRESS = parse_ip("10.1.0.2")


def network(base: str, length: int, ip_range: tuple[str, int] | None = None) -> Network:
    """Return a network of one subnet."""
    given = None if ip_range is None else (parse_ip(ip_range[0]), ip_range[1])
    gateway = parse_ip(base)
    return Network(Vni(7), "blue", (Subnet(parse_ip(base), length, gateway, given),), CREATOR)


def of_subnets(vni: int, *bases: str) -> Network:
    """Return a network of several subnets."""
    subnets = (Subnet(parse_ip(base), 24, parse_ip(base)) for base in bases)
    return Network(Vni(vni), "blue", tuple(subnets), CREATOR)


def frozen(value: Any) -> Any:
    """Return lists as tuples, as they are decoded."""
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def read(value: Value) -> Value:
    """Return the record that a peer reads from the encoding."""
    tag, fields = encode_value(value)
    return decode_value(tag, frozen(fields))


def read_bytes(value: Value) -> Value:
    """Return the record that a peer reads from the bytes that are sent."""
    tag, fields = msgpack.unpackb(msgpack.packb(encode_value(value)), use_list=False)
    return decode_value(tag, fields)


@pytest.mark.parametrize(
    "value",
    [
        network("10.1.0.0", 16),
        network("10.1.0.0", 16, ("10.1.8.0", 21)),
        network("10.1.0.0", 16, ("10.1.8.5", 32)),
        network("fd00:7::", 64, ("fd00:7::100", 120)),
        of_subnets(limits.VNI_MAX - 1, "10.1.0.0", "10.1.1.0"),
        CustomRecord("printer.office", (parse_ip("192.0.2.9"),)),
    ],
)
def test_a_record_is_read_as_it_was_written(value: Value) -> None:
    """A node's peers have what it wrote."""
    assert read(value) == value


@pytest.mark.parametrize(
    "value",
    [
        network("10.1.0.1", 16),  # the standard library raises for such a range
        network("255.255.255.255", 24),  # ends beyond the last address
        network("fd00:7::1", 64),
        network("10.1.0.0", 16, ("10.1.8.5", 21)),
        of_subnets(limits.VNI_MAX, "10.1.0.0", "10.1.1.0"),  # the second one's VNI has 25 bits
        of_subnets(7, "10.1.0.0", "10.1.1.0", "10.1.0.0"),
        network("10.1.0.0", 16, ("fd00:7::", 21)),  # of the other family
        CustomRecord("drucker\u00fc", (parse_ip("192.0.2.9"),)),  # its key is made of ASCII
    ],
)
def test_a_record_that_no_honest_node_writes_is_malformed(value: Value) -> None:
    """It is dropped with a reason before other code sees it."""
    if isinstance(value, CustomRecord):
        fields: Any = (value.name, value.ips)
    else:
        _, fields = encode_value(value)
    with pytest.raises(RemoteError, match="malformed"):
        decode_value(13 if isinstance(value, CustomRecord) else 1, frozen(fields))


def test_records_share_what_they_have_in_common() -> None:
    """A host may hold 50,000 endpoints of one network, many of them with the same labels."""
    raw = Endpoint(
        bytes(8), Vni(0x812345), "c1", mac_for(Vni(7), ADDRESS), (ADDRESS,), (), (HOST_LABEL,)
    )
    first, second = (read_bytes(raw) for _ in range(2))
    assert isinstance(first, Endpoint)
    assert isinstance(second, Endpoint)
    assert first is not second
    assert first.vni is second.vni
    assert first.labels is second.labels
