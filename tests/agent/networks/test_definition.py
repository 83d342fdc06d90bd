"""What makes a sound network definition."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from overlay.agent.networks import definition
from overlay.agent.networks.definition import HostConstraints, NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec, matches, parse_range, subnet_of
from overlay.errors import ConflictError, UsageError
from overlay.model import Network, NodeId, Vni, parse_ip

if TYPE_CHECKING:
    from overlay.agent.gossip.service import GossipService
    from overlay.agent.records.directory import Directory


@pytest.mark.parametrize("text", ["10.32.0.0/16", "192.168.7.0/29", "fd32::/64"])
def test_subnets_are_read(text: str) -> None:
    """An address range is taken as written."""
    assert str(parse_range(text)) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("blue", "is not a subnet"),
        ("10.32.0.0", "has no length"),
        ("10.32.0.7/16", "an address within a subnet"),
        ("10.32.0.0/30", "too few addresses"),
        ("10.32.0.0/33", "is not a subnet"),
        ("224.0.0.0/8", "is reserved"),
        ("127.0.0.0/8", "is reserved"),
        ("169.254.0.0/16", "is reserved"),
        ("0.0.0.0/0", "is reserved"),
        ("0.0.0.0/8", "is reserved"),
        ("192.0.0.0/2", "224.0.0.0/4 is reserved"),
        ("255.255.255.0/24", "is reserved"),
        ("::/0", "is reserved"),
        ("::ffff:10.0.0.0/104", "is reserved"),
        ("fe00::/8", "is reserved"),
        ("fd00::%eth0/64", "is not a subnet"),
    ],
)
def test_what_is_no_subnet_is_told(text: str, told: str) -> None:
    """Each mistake has its own message."""
    with pytest.raises(UsageError, match=told):
        parse_range(text)


def test_a_near_miss_is_corrected() -> None:
    """Who writes a host's address with a length is shown the subnet that was meant."""
    with pytest.raises(UsageError) as caught:
        parse_range("10.32.0.7/16")

    assert "10.32.0.0/16" in caught.value.hint


def test_a_subnet_is_read_with_all_its_options() -> None:
    """Gateway, range, auxiliary addresses (by name) and block length."""
    found = subnet_of(
        SubnetSpec(
            "10.32.0.0/16", "10.32.0.254", "10.32.8.0/21",
            (("router", "10.32.0.2"), ("nas", "10.32.0.3")), 24,
        )
    )  # fmt: skip

    assert found.gateway == parse_ip("10.32.0.254")
    assert found.ip_range == (parse_ip("10.32.8.0"), 21)
    assert found.auxiliary == (("nas", parse_ip("10.32.0.3")), ("router", parse_ip("10.32.0.2")))
    assert found.block_length == 24


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (SubnetSpec("10.1.0.0/24", "10.2.0.1"), "10.2.0.1 is not a usable"),
        (SubnetSpec("10.1.0.0/24", ip_range="10.2.0.0/25"), "not within"),
        (SubnetSpec("10.1.0.0/24", ip_range="10.0.0.0/8"), "not within"),
        (SubnetSpec("10.1.0.0/24", ip_range="10.1.0.9/25"), "not a range"),
        (SubnetSpec("10.1.0.0/24", ip_range="fd00::/64"), "not within"),
        (SubnetSpec("10.1.0.0/24", ip_range="10.1.0.0/28", block_length=26), "smaller than"),
        (SubnetSpec("10.1.0.0/24", block_length=23), "cannot be cut"),
        (SubnetSpec("10.1.0.0/24", block_length=31), "cannot be cut"),
        (SubnetSpec("10.1.0.0/24", auxiliary=(("nas", "10.2.0.9"),)), "nas 10.2.0.9 is no"),
        (SubnetSpec("10.1.0.0/24", auxiliary=(("nas", "10.1.0.255"),)), "not a usable"),
        (SubnetSpec("10.1.0.0/24", auxiliary=(("nas", "10.1.0.1"),)), "both the gateway"),
        (SubnetSpec("10.1.0.0/24", auxiliary=(("a b", "10.1.0.9"),)), "not a valid name"),
    ],
)
def test_options_that_make_no_sense_are_told(spec: SubnetSpec, told: str) -> None:
    """What lies outside the subnet, or is there twice, is refused before anything is made."""
    with pytest.raises(UsageError, match=told):
        subnet_of(spec)


def test_the_same_wish_again_matches_and_another_one_does_not() -> None:
    """Creating is idempotent; a subnet with other blocks or another range is another subnet."""
    spec = SubnetSpec("10.1.0.0/16", ip_range="10.1.4.0/22", block_length=24)
    existing = subnet_of(SubnetSpec("10.1.0.0/16", "10.1.0.9", "10.1.4.0/22", (), 24))

    assert matches(existing, spec)
    assert not matches(existing, SubnetSpec("10.1.0.0/16", block_length=24))
    assert not matches(existing, SubnetSpec("10.1.0.0/16", "10.1.0.8", "10.1.4.0/22", (), 24))


def test_a_name_that_differs_by_case_alone_is_refused() -> None:
    """With the name of the network that has it; also for the words that mean no network."""
    subnets = (subnet_of(SubnetSpec("10.1.0.0/16")),)
    blue = Network(Vni(7), "blue", subnets, NodeId(bytes(16)))
    found = SimpleNamespace(find_network=lambda _name: blue, networks=lambda: [blue])
    directory, any_host = cast("Directory", found), cast("HostConstraints", None)

    def create(name: str) -> Network:
        return definition.create(
            cast("GossipService", None), directory, NetworkSpec(name, ()), any_host
        )

    assert create("blue") is blue
    with pytest.raises(ConflictError, match="'BLUE' is taken by network blue"):
        create("BLUE")
    with pytest.raises(UsageError, match="cannot be named 'None'"):
        create("None")
