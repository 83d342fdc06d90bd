"""Network definitions are checked before anything is created."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from overlay import limits
from overlay.agent.networks import definition
from overlay.agent.networks.definition import HostConstraints
from overlay.agent.networks.spec import NetworkSpec, require_same
from overlay.agent.networks.subnets import SubnetSpec, matches, parse_range, subnet_of
from overlay.core.ipam.address_choice import reserved_addresses
from overlay.core.ipam.subnet_numbers import subnet_run
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, UsageError
from overlay.model import (
    ANY_NAME_LABEL,
    DEFAULT_DENY_LABEL,
    EVPN_LABEL,
    Network,
    NodeId,
    Subnet,
    Vni,
    parse_ip,
)

if TYPE_CHECKING:
    from overlay.agent.gossip.service import GossipService
    from overlay.agent.records.directory import Directory


@pytest.mark.parametrize("text", ["10.32.0.0/16", "192.168.7.0/31", "fd32::/64"])
def test_subnets_are_read(text: str) -> None:
    """An address range is taken as written."""
    assert str(parse_range(text)) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("blue", "is not a subnet"),
        ("10.32.0.0", "has no length"),
        ("10.32.0.7/16", "an address within a subnet"),
        ("10.32.0.0/32", "too few addresses"),
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
    """The error for a host's address with a length shows the subnet that was meant."""
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
    """Addresses outside the subnet, and duplicates, are refused before anything is created."""
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


def test_small_ipv4_subnets_have_room_for_a_container() -> None:
    """A /30 has one between gateway and broadcast address; a /31 has neither end (RFC 3021)."""
    four, two = (subnet_of(SubnetSpec(text)) for text in ("10.1.0.4/30", "10.1.0.4/31"))

    assert (four.gateway, two.gateway) == (parse_ip("10.1.0.5"), parse_ip("10.1.0.4"))
    assert subnet_of(SubnetSpec("10.1.0.4/31", "10.1.0.5")).gateway == parse_ip("10.1.0.5")
    for subnet, free in ((four, ["10.1.0.6"]), (two, ["10.1.0.5"])):
        first, last = subnet_run(subnet)
        taken = reserved_addresses(subnet)
        assert [n for n in range(first, last + 1) if n not in taken] == [
            int.from_bytes(parse_ip(text), "big") for text in free
        ]


def host(*networks: Network) -> tuple[Directory, HostConstraints]:
    """Return a host that knows these networks and has no routes."""
    found = SimpleNamespace(networks=lambda: list(networks))
    constraints = HostConstraints(lambda _wanted: None, frozenset())
    return cast("Directory", found), constraints


def test_ipv6_adds_a_random_unique_local_subnet() -> None:
    """Another one for each network; with the default subnet or the given ones before it."""
    chosen = [
        definition._subnets(host()[0], NetworkSpec("blue", asked, ipv6=True), host()[1])
        for asked in ((), (SubnetSpec("10.9.0.0/24"),))
    ]
    (default, first), (given, second) = chosen

    assert str(given) == "10.9.0.0/24"
    assert len(default.base) == 4
    assert first.network != second.network
    for each in (first, second):
        assert (each.base[:1], each.prefix_length, each.base[6:]) == (b"\xfd", 64, bytes(10))


def test_a_network_that_has_all_subnets_holds_up_nobody() -> None:
    """Any member may write one; so may a route of the host cover all. The agent went on drawing."""
    wide = Subnet(parse_ip("8000::"), 1, parse_ip("8000::1"))
    hostile = Network(Vni(9), "wide", (wide,), NodeId(bytes(16)))
    asked = NetworkSpec("blue", (SubnetSpec("10.9.0.0/24"),), ipv6=True)
    with pytest.raises(ConflictError, match="no unique local IPv6 subnet is free") as caught:
        definition._subnets(host(hostile)[0], asked, host()[1])
    assert "overlaps network wide, with subnet 8000::/1" in caught.value.why

    routed = HostConstraints(
        lambda wanted: "fd00::/8 dev eth1" if wanted.version == 6 else None, frozenset()
    )
    with pytest.raises(ConflictError) as caught:
        definition._subnets(host()[0], asked, routed)
    assert "overlaps fd00::/8 dev eth1" in caught.value.why


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (NetworkSpec("a", (SubnetSpec("fd00::/64"),), ipv6=True), "and one is given"),
        (
            NetworkSpec("a", (SubnetSpec("10.9.0.0/24"),), ipv6=True, driver="macvlan",
                        parent="eth1"),
            "not supported by driver macvlan",
        ),
    ],
)  # fmt: skip
def test_ipv6_is_refused_where_a_prefix_is_given(spec: NetworkSpec, told: str) -> None:
    """By the user, or by the segment's own router."""
    with pytest.raises(UsageError, match=told):
        definition.require_valid(spec)


def test_creating_with_ipv6_again_is_no_conflict() -> None:
    """The random subnet of the first time stays; a network without IPv6 is another one."""
    spec = NetworkSpec("blue", (SubnetSpec("10.9.0.0/24"),), ipv6=True)
    subnets = definition._subnets(host()[0], spec, host()[1])
    blue = Network(Vni(7), "blue", subnets, NodeId(bytes(16)))
    require_same(blue, spec)
    require_same(blue, NetworkSpec("blue", (), ipv6=True))
    with pytest.raises(ConflictError, match="different network"):
        require_same(blue, NetworkSpec("blue", spec.subnets))
    with pytest.raises(ConflictError, match="different network"):
        require_same(replace(blue, subnets=subnets[:1]), spec)


def test_overlaps_with_other_networks_are_named() -> None:
    """In either direction; a network does not overlap itself."""
    big = Network(Vni(7), "big", (subnet_of(SubnetSpec("10.9.0.0/16")),), NodeId(bytes(16)))
    part = replace(big, vni=Vni(8), name="part", subnets=(subnet_of(SubnetSpec("10.9.1.0/24")),))
    directory, _ = host(big, part)

    assert definition.overlaps(directory, part) == [
        "10.9.1.0/24 overlaps 10.9.0.0/16 of network big"
    ]
    assert definition.overlaps(directory, big) == [
        "10.9.0.0/16 overlaps 10.9.1.0/24 of network part"
    ]


def test_labels_of_overlayd_count_too() -> None:
    """A definition whose record would be refused is not made, and the error says why."""
    labels = tuple((f"label{number}", "") for number in range(limits.LABEL_COUNT_MAX))
    definition._labels(NetworkSpec("blue", [], labels=labels))

    with pytest.raises(UsageError, match="17 labels; 16 is the limit") as caught:
        definition._labels(NetworkSpec("blue", [], labels=(*labels, ANY_NAME_LABEL)))
    assert "--any-name" in caught.value.why


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (NetworkSpec("a", (), 41, labels=(EVPN_LABEL,), encrypted=True), "by an encrypted network"),
        (NetworkSpec("a", (), labels=(EVPN_LABEL,), driver="bridge"), "by driver bridge"),
        (NetworkSpec("a", (), labels=(EVPN_LABEL,)), "evpn requires a vni"),
    ],
)
def test_what_no_fabric_can_carry_is_told(spec: NetworkSpec, told: str) -> None:
    """No key of the cluster leaves it, and the fabric knows the network by its VNI."""
    with pytest.raises(UsageError, match=told):
        definition.require_valid(spec)


def test_an_exported_network_is_another_one() -> None:
    """The same definition again is no conflict; one without EVPN is."""
    subnets = (subnet_of(SubnetSpec("10.9.0.0/24")),)
    wide = Network(Vni(41), "wide", subnets, NodeId(bytes(16)), labels=(EVPN_LABEL,))
    spec = NetworkSpec("wide", (), 41, labels=(EVPN_LABEL,))

    definition.require_valid(spec)
    require_same(wide, spec)
    with pytest.raises(ConflictError, match="VNI 41, evpn"):
        require_same(wide, NetworkSpec("wide", (), 41))
    with pytest.raises(ConflictError, match="different network"):
        require_same(replace(wide, labels=()), spec)


def test_another_default_is_another_network() -> None:
    """A script that asks for a network that denies does not take one that allows for it."""
    subnets = (subnet_of(SubnetSpec("10.1.0.0/16")),)
    blue = Network(Vni(7), "blue", subnets, NodeId(bytes(16)))
    vault = replace(blue, name="vault", labels=(DEFAULT_DENY_LABEL,))

    require_same(vault, NetworkSpec("vault", (), labels=(DEFAULT_DENY_LABEL,)))
    for existing, labels in ((blue, (DEFAULT_DENY_LABEL,)), (vault, ())):
        with pytest.raises(ConflictError, match="different network") as caught:
            require_same(existing, NetworkSpec(existing.name, (), labels=labels))
        assert "--default-deny" in caught.value.hint


def test_a_segment_that_is_not_overlayds_denies_nothing() -> None:
    """Its driver is named: connections on it would pass all the same."""
    lan = NetworkSpec(
        "lan", (SubnetSpec("10.1.0.0/16"),), labels=(DEFAULT_DENY_LABEL,), driver="macvlan",
        parent="eth1",
    )  # fmt: skip

    with pytest.raises(ConflictError, match="network lan cannot have policies"):
        definition.require_valid(lan)


@pytest.mark.parametrize("driver", ["macvlan", "bridge"])
def test_a_declared_rate_is_refused_where_nothing_is_shared(driver: str) -> None:
    """Also in a file that creates the network."""
    lan = NetworkSpec(
        "lan", (SubnetSpec("10.1.0.0/16"),), labels=(("overlayd.shared-rate", "64000"),),
        driver=driver, parent="eth1" if driver == "macvlan" else "",
    )  # fmt: skip

    with pytest.raises(UsageError, match=f"shared_rate is not supported by driver {driver}"):
        definition.require_valid(lan)


def test_hosts_with_nothing_but_a_router_do_not_keep_it() -> None:
    """They have written nothing on it; a file that removes both is not refused beforehand."""
    subnet = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
    red = Network(Vni(7), "red", (subnet,), NodeId(b"o" * 16))
    connected, state = [SimpleNamespace(name="between")], MemberState.ALIVE
    fake = SimpleNamespace(
        routers=SimpleNamespace(on=lambda _vni: connected),
        unseen=lambda _vni: [NodeId(b"x" * 16)],
        node_name=lambda _node_id: "vm1",
        node_state=lambda _node_id: state,
        services=lambda _vni: [],
        endpoints=lambda _vni: [],
    )
    directory = cast("Directory", fake)

    definition.require_unused(directory, red, services_end=True)
    with pytest.raises(ConflictError, match="network red is in use"):
        definition.require_unused(directory, red)
    connected.clear()
    with pytest.raises(ConflictError, match="network red may be in use") as caught:
        definition.require_unused(directory, red, services_end=True)
    assert caught.value.hint.startswith("Try again in a moment")
    state = MemberState.DEAD  # it answers no second try
    with pytest.raises(ConflictError, match="network red may be in use") as caught:
        definition.require_unused(directory, red, services_end=True)
    assert caught.value.hint.endswith("overlayd forget --powered-off vm1")
