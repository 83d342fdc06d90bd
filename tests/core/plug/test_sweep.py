"""The addresses that a plugged segment is asked for, and the frames that ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.checksum import internet_checksum
from overlay.core.ipam.address_choice import pick, pick_last, reserved_addresses
from overlay.core.ipam.departures import Departures
from overlay.core.ipam.ownership import Ownership, ownership_after
from overlay.core.plug.resolution import resolution_frame
from overlay.core.plug.sweep import next_in_line
from overlay.model import Grant, Ip, Mac, Network, NodeId, Subnet, Vni, parse_ip

CREATOR, OTHER = NodeId(b"c" * 16), NodeId(b"o" * 16)
SUBNETS = (
    Subnet(parse_ip("10.7.0.0"), 24, parse_ip("10.7.0.1")),
    Subnet(parse_ip("10.8.0.0"), 24, parse_ip("10.8.0.1")),
    Subnet(parse_ip("fd07::"), 64, parse_ip("fd07::1")),
)
BLUE = Network(Vni(7), "blue", SUBNETS, CREATOR)
GRANT = Grant(
    Vni(7), parse_ip("10.7.0.64"), parse_ip("10.7.0.127"), OTHER, generation=1, request_id=b"r" * 8
)
MAC = Mac(b"\x06\0\0\0\0\1")


def owned(*grants: Grant, network: Network = BLUE) -> Ownership:
    """Return who owns what, after the creator has granted something."""
    return ownership_after(Departures(), network, [(CREATOR, grant) for grant in grants])


def ipv4(low: int) -> Ip:
    """Return an address of the first subnet."""
    return Ip(parse_ip("10.7.0.0")[:3] + bytes([low]))


@given(st.frozensets(st.integers(0, 255).map(ipv4), max_size=200))
def test_what_a_host_takes_next_is_asked_for(taken: frozenset[Ip]) -> None:
    """For containers and its own endpoint, whatever is taken; and nothing that is."""
    ownership = owned(GRANT)
    found = next_in_line(ownership, taken)

    assert not taken & set(found)
    assert len(found) == len(set(found))
    for node in (CREATOR, OTHER):
        for index in (0, 2):
            subnet = SUBNETS[index]
            space = ownership.owned(node, index)
            reserved = reserved_addresses(subnet)
            assert pick(subnet, space, taken, {}, reserved) in {*found, None}
            assert pick_last(subnet, space, taken, ()) in {*found, None}


def test_it_is_a_bounded_part_of_the_first_segment() -> None:
    """A /64 has more addresses than anybody asks for; the second segment is not plugged."""
    found = next_in_line(owned(GRANT), frozenset())

    assert len(found) == 3 * (limits.PLUG_SWEEP_NEXT + 1)
    assert not any(ip in SUBNETS[1] for ip in found)
    assert parse_ip("10.7.0.2") in found
    assert not {parse_ip("10.7.0.1"), parse_ip("10.7.0.0"), parse_ip("fd07::")} & set(found)


def test_many_owners_share_the_bound() -> None:
    """Each gets its next ones asked for, before anybody's later ones."""
    base = parse_ip("10.0.0.0")
    network = Network(Vni(7), "blue", (Subnet(base, 8, parse_ip("10.0.0.1")),), CREATOR)
    grants = [
        Grant(
            Vni(7),
            Ip(bytes([10, 1, number, 0])),
            Ip(bytes([10, 1, number, 255])),
            NodeId(bytes([number]) * 16),
            generation=1,
            request_id=bytes([number]) * 8,
        )
        for number in range(1, 99)
    ]
    found = next_in_line(owned(*grants, network=network), frozenset())

    assert len(found) == limits.PLUG_SWEEP_ADDRESSES_MAX
    assert {Ip(bytes([10, 1, number, 0])) for number in range(1, 99)} <= set(found)


def test_an_arp_request_asks_in_the_gateways_name() -> None:
    """To all; a request without a sender would make a machine give the address up."""
    frame = resolution_frame(MAC, parse_ip("10.7.0.1"), parse_ip("10.7.0.9"))

    assert len(frame) == 60
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x06"
    assert frame[14:22] == bytes.fromhex("0001080006040001")
    assert frame[22:42] == MAC + parse_ip("10.7.0.1") + bytes(6) + parse_ip("10.7.0.9")


@pytest.mark.parametrize("target", ["fd07::200", "fd07::ffff:1234:5678:9abc"])
def test_a_solicitation_goes_to_the_addresss_own_group(target: str) -> None:
    """With a checksum that holds, and the hop limit without which it is ignored."""
    ip = parse_ip(target)
    frame = resolution_frame(MAC, parse_ip("fd07::1"), ip)

    assert frame[:6] == b"\x33\x33\xff" + ip[-3:]
    source, group, message = frame[22:38], frame[38:54], frame[54:]
    assert (frame[20], frame[21], source) == (58, 255, parse_ip("fd07::1"))
    assert group == parse_ip("ff02::1:ff00:0")[:13] + ip[-3:]
    assert (message[0], message[8:24], message[24:]) == (135, ip, b"\x01\x01" + MAC)
    pseudo = source + group + len(message).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert internet_checksum(pseudo + message) == 0
