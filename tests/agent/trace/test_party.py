"""Names and addresses are resolved so that both ends share a network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.records.directory import PlacedEndpoint
from overlay.agent.trace.party import PartyFinder, PartyKind, node_label
from overlay.core.evpn.intake import Intake
from overlay.core.fabric import FabricMac, FabricNeighbor, FabricRows
from overlay.errors import ConflictError, NotFoundError
from overlay.model import (
    HOST_LABEL,
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    is_host,
    parse_ip,
)

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"p" * 16)
NAMES = {OWN: "vm1", OTHER: "vm2"}


def network(vni: int, name: str, *bases: tuple[str, int, str]) -> Network:
    """Return a network with subnets of (base, prefix length, gateway)."""
    subnets = tuple(Subnet(parse_ip(b), length, parse_ip(g)) for b, length, g in bases)
    return Network(Vni(vni), name, subnets, OWN)


BLUE = network(7, "blue", ("10.1.0.0", 24, "10.1.0.1"), ("fd01::", 64, "fd01::1"))
RED = network(9, "red", ("10.2.0.0", 24, "10.2.0.1"))


def endpoint(on: Network, name: str, *ips: str, aliases: tuple[str, ...] = ()) -> Endpoint:
    """Return an endpoint."""
    packed = tuple(map(parse_ip, ips))
    return Endpoint(name.encode().ljust(8), on.vni, name, Mac(packed[0][-4:] + b"xx"), packed,
                    aliases)  # fmt: skip


class Records:
    """A directory of two networks, and the attachments of this host."""

    own = OWN

    def __init__(self, *placed: tuple[NodeId, Endpoint]) -> None:
        self.placed = [PlacedEndpoint(*each) for each in placed]

    def routed_with(self, _network: Network) -> list[Network]:
        """Return no network: there is no router."""
        return []

    def networks(self) -> list[Network]:
        """Return both networks."""
        return [BLUE, RED]

    def network(self, name: str) -> Network:
        """Return a network by name."""
        return {"blue": BLUE, "red": RED}[name]

    def network_by_vni(self, vni: int) -> Network:
        """Return a network by VNI."""
        return {7: BLUE, 9: RED}[vni]

    def all_endpoints(self, vni: int) -> list[PlacedEndpoint]:
        """Return the endpoints of a network."""
        return [each for each in self.placed if each.endpoint.vni == vni]

    def endpoints(self, vni: int) -> list[PlacedEndpoint]:
        """Return those of containers."""
        return [each for each in self.all_endpoints(vni) if not is_host(each.endpoint)]

    def host_endpoints(self, vni: int) -> list[PlacedEndpoint]:
        """Return those of hosts."""
        return [each for each in self.all_endpoints(vni) if is_host(each.endpoint)]

    def endpoint_of(self, attachment: Any) -> Endpoint | None:
        """Return the endpoint of an attachment."""
        found = (each.endpoint for each in self.placed)
        return next((e for e in found if e.endpoint_id.hex() == attachment.endpoint_id), None)

    def node_name(self, node_id: NodeId) -> str:
        """Return a node's name."""
        return NAMES[node_id]


def finder(*placed: tuple[NodeId, Endpoint], attached: dict[str, str] | None = None) -> PartyFinder:
    """Return a finder; `attached` are targets by the name of their endpoint."""
    known = {each.name: each for _, each in placed}
    attachments = {
        known[name].endpoint_id: SimpleNamespace(
            target=target, endpoint_id=known[name].endpoint_id.hex(), vni=known[name].vni
        )
        for name, target in (attached or {}).items()
    }
    return PartyFinder(cast("Any", Records(*placed)), cast("Any", attachments), FabricTable())


WEB = endpoint(BLUE, "web", "10.1.0.2", "fd01::2")
DB = endpoint(BLUE, "db", "10.1.0.3", aliases=("store",))
RED_DB = endpoint(RED, "db", "10.2.0.3")


@pytest.mark.parametrize("text", ["db", "DB", "store", "10.1.0.3"])
def test_a_target_is_a_name_an_alias_or_an_address(text: str) -> None:
    """Names in any case, on any host."""
    (found,) = finder((OWN, WEB), (OTHER, DB)).targets(text, None)

    assert (found.name, found.node_id, found.kind) == ("db", OTHER, PartyKind.CONTAINER)


def test_a_name_takes_precedence_over_an_alias() -> None:
    """As with DNS."""
    store = endpoint(BLUE, "store", "10.1.0.9")

    assert [p.name for p in finder((OTHER, DB), (OWN, store)).targets("store", None)] == ["store"]


def test_a_host_is_a_target_where_it_is_exposed() -> None:
    """By the name of its node, unless a container has it."""
    own = Endpoint(b"hostpart", BLUE.vni, "host", Mac(b"\2hostx"), (Ip(bytes([10, 1, 0, 9])),),
                   labels=(HOST_LABEL,))  # fmt: skip
    named = endpoint(BLUE, "vm2", "10.1.0.44")

    assert [p.kind for p in finder((OTHER, own)).targets("vm2", None)] == [PartyKind.HOST]
    found = finder((OTHER, own), (OWN, named)).targets("vm2", None)
    assert [p.kind for p in found] == [PartyKind.CONTAINER]


def test_a_gateway_is_a_target_without_an_endpoint() -> None:
    """Each host has it."""
    (found,) = finder().targets("10.1.0.1", None)

    assert (found.kind, found.endpoint, found.node_id) == (PartyKind.GATEWAY, None, OWN)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("nobody", "there is no container 'nobody'"),
        ("10.1.0.77", "no container has the address 10.1.0.77"),
        ("8.8.8.8", "8.8.8.8 is not an address of the overlay"),
    ],
)
def test_what_is_unknown_is_named(text: str, what: str) -> None:
    """A name, a free address, an address outside."""
    with pytest.raises(NotFoundError, match=what) as caught:
        finder((OWN, WEB)).targets(text, None)

    assert caught.value.hint


def test_a_source_elsewhere_is_named_with_its_host() -> None:
    """So that the operator goes there."""
    with pytest.raises(NotFoundError, match="container db is not on this host") as caught:
        finder((OWN, WEB), (OTHER, DB)).own_sources("db", None)

    assert caught.value.why == "it is on vm2"


def test_a_source_may_be_the_target_of_an_attach() -> None:
    """The text by which it was attached, with or without its kind."""
    found = finder((OWN, WEB), attached={"web": "docker:shop"})

    assert [each.name for each in found.own_sources("docker:shop", None)] == ["web"]
    assert [each.name for each in found.own_sources("shop", None)] == ["web"]


def test_a_pair_shares_a_network() -> None:
    """Of several endpoints of one name, the one that the source reaches."""
    found = finder((OWN, WEB), (OTHER, RED_DB), (OTHER, DB))
    pair = found.pair(found.own_sources("web", None), found.targets("db", None), None)

    assert (pair.network, pair.target_ip, pair.is_local) == (BLUE, parse_ip("10.1.0.3"), False)


def test_different_networks_are_said() -> None:
    """With the command that joins them."""
    found = finder((OWN, WEB), (OTHER, RED_DB))
    with pytest.raises(ConflictError, match="web and db are not on one network") as caught:
        found.pair(found.own_sources("web", None), found.targets("db", None), None)

    assert "web is on blue, db is on red" in caught.value.why
    assert "--network red" in caught.value.hint


def test_an_ip_version_that_one_lacks_is_said() -> None:
    """The target has no IPv6 address."""
    found = finder((OWN, WEB), (OTHER, DB))
    with pytest.raises(ConflictError, match="no IPv6 in common"):
        found.pair(found.own_sources("web", None), found.targets("db", None), 6)


def test_the_default_source_is_a_container_here() -> None:
    """The first by name, before the host's own endpoint, and never the target itself."""
    host = Endpoint(b"hostpart", BLUE.vni, "vm1", Mac(b"\2hostx"), (Ip(bytes([10, 1, 0, 9])),),
                    labels=(HOST_LABEL,))  # fmt: skip
    app = endpoint(BLUE, "app", "10.1.0.5")
    found = finder((OWN, WEB), (OWN, host), (OWN, app))

    sources = found.default_sources(found.targets("app", None))

    assert [each.name for each in sources] == ["web", "vm1", "gateway of blue"]


def test_nothing_to_send_from_is_an_error() -> None:
    """The gateway gets no answer from another host, so it is not offered."""
    found = finder((OTHER, DB))
    with pytest.raises(ConflictError, match="nothing to send from on network blue") as caught:
        found.default_sources(found.targets("db", None))

    assert "vm2" in caught.value.hint


def test_an_address_of_the_fabric_is_behind_its_vtep() -> None:
    """No agent runs there, so there is no half of the way to ask for."""
    mac, ip = Mac(b"\2leaf1"), parse_ip("10.1.0.77")
    rows = FabricRows(
        frozenset({FabricMac(BLUE.vni, mac, parse_ip("10.9.0.2"))}),
        frozenset({FabricNeighbor(BLUE.vni, ip, mac)}),
    )
    fabric = FabricTable()
    fabric.publish(Intake({BLUE.vni: rows}), frozenset({BLUE.vni}))
    found = PartyFinder(cast("Any", Records((OWN, WEB))), cast("Any", {}), fabric)

    (outside,) = found.targets("10.1.0.77", None)
    assert outside.kind is PartyKind.OUTSIDE
    assert outside.endpoint is not None
    assert (outside.endpoint.mac, outside.ips) == (mac, (ip,))
    assert node_label(cast("Any", Records()), outside) == "VTEP 10.9.0.2"
    with pytest.raises(NotFoundError, match="no container has the address"):
        found.targets("10.1.0.78", None)


def test_a_machine_behind_a_plug_is_no_containers_end() -> None:
    """Its host is a member, but nothing there explains what becomes of a packet on the wire."""
    mac, ip = Mac(b"\2wire1"), parse_ip("10.1.0.79")
    rows = FabricRows(
        frozenset({FabricMac(BLUE.vni, mac, parse_ip("10.9.0.2"))}),
        frozenset({FabricNeighbor(BLUE.vni, ip, mac)}),
    )
    fabric = FabricTable()
    fabric.put_plugged({BLUE.vni: rows})
    found = PartyFinder(cast("Any", Records((OWN, WEB))), cast("Any", {}), fabric)

    (machine,) = found.targets("10.1.0.79", None)
    assert machine.kind is PartyKind.PLUGGED
