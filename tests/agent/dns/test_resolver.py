"""Names and addresses are resolved for a DNS client."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay.agent.dns.records.tied_records import label_of
from overlay.agent.dns.resolver import DnsAnswer, address_of_reverse
from overlay.core.protocol.records import CustomRecord
from overlay.errors import UsageError
from overlay.model import ANY_NAME_LABEL, SHARED_NAME_LABEL, Endpoint, Network, NodeId, parse_ip
from tests.agent.dns.conftest import ALIVE, BLUE, CLIENT, DEAD, RED, Records, endpoint, resolver


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("router", ["10.1.0.1", "192.168.7.1"]),
        ("web", ["10.1.0.2"]),
        ("WEB.", ["10.1.0.2"]),
        ("web2", ["10.1.0.3"]),
        ("web.blue.overlay", ["10.1.0.2"]),
        ("web.overlay", ["10.1.0.2"]),
        ("www", ["10.1.0.2", "10.1.0.3"]),
        ("ghost.blue.overlay", []),
        ("db.red.overlay", []),
        ("nobody.overlay", []),
    ],
)
def test_names_on_the_clients_networks_are_resolved(asked: str, found: list[str]) -> None:
    """Names, qualified names and aliases resolve; dead nodes and foreign networks do not."""
    answer = resolver().forward(BLUE, CLIENT, asked)

    assert answer is not None
    assert [parse_ip(text) for text in found] == list(answer.ips)


class Labeled(Records):
    """Records with more endpoints on blue, which have labels."""

    def __init__(self, *more: tuple[NodeId, Endpoint]) -> None:
        self._more = list(more)

    def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
        """Return the endpoints of a network."""
        return [*super().endpoints(vni), *(self._more if vni == 1 else [])]


def test_a_shared_name_stands_for_all_that_share_it() -> None:
    """On live hosts; one that does not share it has it alone if its id is the lowest."""
    shared = [
        replace(endpoint(1, "pool", f"10.1.0.{last}"), endpoint_id=bytes([last]) * 8, labels=label)
        for last, label in ((20, (SHARED_NAME_LABEL,)), (21, (SHARED_NAME_LABEL,)), (22, ()))
    ]
    both = (parse_ip("10.1.0.20"), parse_ip("10.1.0.21"))
    for more, found in (
        ([(ALIVE, shared[0]), (ALIVE, shared[1])], both),
        ([(ALIVE, shared[0]), (DEAD, shared[1])], both[:1]),
        ([(ALIVE, each) for each in shared], both),
        ([(ALIVE, replace(shared[2], endpoint_id=bytes(8))), (ALIVE, shared[0])],
         (parse_ip("10.1.0.22"),)),
    ):  # fmt: skip
        made = resolver(records=Labeled(*more))
        answer = made.forward(BLUE, CLIENT, "pool")
        assert answer is not None
        assert answer.ips == found
        assert made.all_names(BLUE)["pool"] == found


def test_a_containers_records_go_with_it() -> None:
    """They are answered while its host lives, as custom records are; broken ones never."""
    labels = (
        label_of("Shop", [parse_ip("10.1.0.100"), parse_ip("fd99::1")]),
        label_of("self", []),
        ("overlayd.dns.broken", "10.1.0"),
        ("overlayd.dns.-", "10.1.0.7"),
        label_of("web2", [parse_ip("10.1.0.101")]),  # a container has the name
    )
    tied = replace(endpoint(1, "front", "10.1.0.30"), labels=labels)

    made = resolver(records=Labeled((ALIVE, tied)))
    shop = made.forward(BLUE, CLIENT, "shop.blue.overlay")
    own = made.forward(BLUE, CLIENT, "self")
    named = made.forward(BLUE, CLIENT, "web2")
    assert shop is not None
    assert own is not None
    assert named is not None
    assert shop.ips == (parse_ip("10.1.0.100"), parse_ip("fd99::1"))
    assert own.ips == (parse_ip("10.1.0.30"),)
    assert named.ips == (parse_ip("10.1.0.3"),)
    assert made.forward(BLUE, CLIENT, "broken") is None
    reverse = made.reverse_lookup([BLUE], parse_ip("10.1.0.100"))
    assert reverse is not None
    assert reverse.names == ("shop.blue.overlay",)
    assert {"shop", "self"} <= made.all_names(BLUE).keys()

    dead = resolver(records=Labeled((DEAD, tied)))
    assert dead.forward(BLUE, CLIENT, "shop") is None
    assert "shop" not in dead.all_names(BLUE)


def test_a_networks_name_may_have_dots() -> None:
    """Everything between the container's name and the domain is the network's name."""
    dotted = replace(BLUE, name="blue.Prod")

    for asked in ("web.blue.prod.overlay", "www.BLUE.prod.overlay."):
        answer = resolver().forward(dotted, CLIENT, asked)
        assert answer is not None
        assert parse_ip("10.1.0.2") in answer.ips
    of_network = resolver().forward(dotted, CLIENT, "blue.prod.overlay")
    assert of_network is not None
    assert (of_network.exists, of_network.ips) == (True, ())


def test_unknown_bare_names_go_to_the_hosts_resolvers() -> None:
    """A bare name that no endpoint has is not answered here."""
    assert resolver().forward(BLUE, CLIENT, "example.org") is None


def test_a_container_on_two_networks_sees_both() -> None:
    """Names on every network of the client are resolved."""
    answer = resolver(RED).forward(BLUE, CLIENT, "db.red.overlay")

    assert answer is not None
    assert answer.ips == (parse_ip("10.2.0.2"),)


def test_addresses_resolve_to_full_names() -> None:
    """A reverse query has the full name; the host's resolvers answer for other subnets."""
    answer = resolver().reverse(BLUE, CLIENT, "2.0.1.10.in-addr.arpa.")

    assert answer is not None
    assert answer.names == ("web.blue.overlay",)
    assert resolver().reverse(BLUE, CLIENT, "8.8.8.8.in-addr.arpa.") is None

    custom = resolver().reverse(BLUE, CLIENT, "1.7.168.192.in-addr.arpa.")
    assert custom is not None
    assert custom.names == ("router.blue.overlay",)


def test_reverse_names_of_ipv6_are_read() -> None:
    """32 reversed digits are an IPv6 address; other names in ip6.arpa are not."""
    name = ".".join(reversed(parse_ip("fd00::12").hex())) + ".ip6.arpa"

    assert address_of_reverse(name) == parse_ip("fd00::12")
    assert address_of_reverse("1.2.ip6.arpa") is None
    assert address_of_reverse("x.in-addr.arpa") is None


def test_of_duplicate_names_the_lowest_id_is_resolved() -> None:
    """The endpoint with the lowest id has the name, on every node; an alias may be shared."""

    class Twice(Records):
        def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
            one = replace(endpoint(1, "web", "10.1.0.3", "www"), endpoint_id=b"2" * 8)
            two = replace(endpoint(1, "Web", "10.1.0.2", "www"), endpoint_id=b"1" * 8)
            return [(ALIVE, item) for item in (one, two) if item.vni == vni]

    known = resolver(records=Twice())
    by_name, by_alias = (known.forward(BLUE, CLIENT, name) for name in ("web", "www"))

    assert by_name is not None
    assert by_name.ips == (parse_ip("10.1.0.2"),)
    assert by_alias is not None
    assert len(by_alias.ips) == 2


def test_listed_names_have_the_addresses_of_answers() -> None:
    """The list of a network's names has the addresses that queries for them return."""
    listed = resolver().all_names(BLUE)

    assert list(listed) == ["router", "web", "web2", "www"]
    for name, ips in listed.items():
        answer = resolver().lookup([BLUE], name)
        assert answer is not None
        assert answer.ips == ips


def test_of_duplicate_names_the_lowest_id_is_listed() -> None:
    """The endpoint with the lowest id has the name, whatever the order of the records."""
    first = replace(endpoint(1, "web", "10.1.0.7"), endpoint_id=b"a" * 8)
    second = replace(endpoint(1, "WEB", "10.1.0.8"), endpoint_id=b"b" * 8)

    class Twice(Records):
        def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
            return [(ALIVE, second), (ALIVE, first)] if vni == BLUE.vni else []

    twice = resolver(records=Twice())

    answer = twice.lookup([BLUE], "web")
    assert answer is not None
    assert twice.all_names(BLUE)["web"] == answer.ips == (parse_ip("10.1.0.7"),)


class PublicNames(Records):
    """A hostile member's records: names of the Internet, in each place where a name can be."""

    def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
        """Return a container with such a name, and one with such an alias."""
        named = endpoint(1, "www.example.org", "10.1.0.66")
        aliased = endpoint(1, "evil", "10.1.0.67", "Accounts.Example.com")
        return [(ALIVE, item) for item in (named, aliased) if item.vni == vni]

    def custom_records(self, vni: int) -> list[tuple[NodeId, CustomRecord]]:
        """Return a custom record with such a name."""
        record = CustomRecord("mirror.example.net", (parse_ip("10.1.0.68"),))
        return [(ALIVE, record)] if vni == BLUE.vni else []


PUBLIC_NAMES = {
    "www.example.org": "10.1.0.66",
    "Accounts.example.com.": "10.1.0.67",
    "mirror.example.net": "10.1.0.68",
}


@pytest.mark.parametrize(("asked", "ip"), PUBLIC_NAMES.items())
def test_a_public_name_in_a_record_is_not_answered(asked: str, ip: str) -> None:
    """Neither for clients nor in the lists; below the domain, it is a name like any other."""
    hostile = resolver(records=PublicNames())

    assert hostile.forward(BLUE, CLIENT, asked) is None
    assert hostile.lookup([BLUE], asked) is None
    assert set(hostile.all_names(BLUE)) == {
        "www.example.org.overlay", "accounts.example.com.overlay", "mirror.example.net.overlay",
        "evil",
    }  # fmt: skip
    for below in (f"{asked.rstrip('.')}.overlay", f"{asked.rstrip('.')}.blue.overlay"):
        answer = hostile.forward(BLUE, CLIENT, below)
        assert answer is not None
        assert answer.ips == (parse_ip(ip),)


@pytest.mark.parametrize(("asked", "ip"), PUBLIC_NAMES.items())
def test_a_network_may_answer_any_name(asked: str, ip: str) -> None:
    """With the label, and only for the clients of that network."""
    chosen = replace(BLUE, labels=(ANY_NAME_LABEL,))
    answer = resolver(records=PublicNames()).forward(chosen, CLIENT, asked)

    assert answer is not None
    assert answer.ips == (parse_ip(ip),)
    assert asked.rstrip(".").lower() in resolver(records=PublicNames()).all_names(chosen)


def test_a_record_outside_the_domain_is_refused() -> None:
    """A name below the domain is stored without it, so that every host answers it there."""
    chosen = replace(BLUE, labels=(ANY_NAME_LABEL,))

    assert resolver().local_name(BLUE, "Database") == "database"
    assert resolver().local_name(BLUE, "db.Prod.overlay.") == "db.prod"
    assert resolver().local_name(chosen, "www.example.org") == "www.example.org"
    with pytest.raises(UsageError, match=r"www\.example\.org is outside the domain overlay"):
        resolver().local_name(BLUE, "www.example.org")


class RoutedRecords(Records):
    """The same, with a router between the two networks."""

    def routed_with(self, network: Network) -> list[Network]:
        """Return the other network."""
        return [RED] if network == BLUE else [BLUE]


def test_a_router_leads_to_names_with_their_network() -> None:
    """Below the domain, with the network in the name; never a bare name of another network."""
    routed = resolver(records=RoutedRecords())

    found = routed.forward(BLUE, CLIENT, "db.red.overlay")
    assert found is not None
    assert found.ips == (parse_ip("10.2.0.2"),)
    assert routed.forward(BLUE, CLIENT, "db") is None
    assert routed.forward(BLUE, CLIENT, "db.overlay") == DnsAnswer(exists=False)
    assert routed.forward(BLUE, CLIENT, "nobody.red.overlay") == DnsAnswer(exists=False)
    back = routed.reverse(BLUE, CLIENT, "2.0.2.10.in-addr.arpa.")
    assert back is not None
    assert back.names == ("db.red.overlay",)
