"""The names for which ports can be published."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.exposure.published_names import PublishedNames
from overlay.agent.records.directory import PlacedEndpoint
from overlay.agent.state.attachments import Attachments
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Endpoint, Mac, Network, NodeId, Subnet, Vni, parse_ip

OWN, OTHER = NodeId(b"o" * 16), NodeId(b"x" * 16)
SUBNETS = (Subnet(parse_ip("10.1.0.0"), 16, parse_ip("10.1.0.1")),)
BLUE, RED, FAR = (Network(Vni(i), n, SUBNETS, OWN) for i, n in enumerate(("blue", "red", "far"), 1))


def endpoint(number: int, name: str, *aliases: str) -> PlacedEndpoint:
    """Return an endpoint of another node."""
    ip = parse_ip(f"10.1.0.{number}")
    found = Endpoint(bytes([number]) * 8, Vni(1), name, Mac(b"\2" * 6), (ip,), aliases)
    return PlacedEndpoint(OTHER, found)


class Records:
    """Containers web and Db on blue, web on red; this host has no records of far."""

    own = OWN

    def network(self, name: str) -> Network:
        """Return a network by name."""
        return {each.name: each for each in self.networks()}[name]

    def networks(self) -> list[Network]:
        """Return all networks."""
        return [BLUE, FAR, RED]

    def follows(self, _node: NodeId, vni: int) -> bool:
        """Return whether a node holds a network's records."""
        return vni != FAR.vni

    def endpoints(self, vni: int) -> list[PlacedEndpoint]:
        """Return the endpoints of a network."""
        on_blue = [endpoint(2, "web"), endpoint(3, "Db", "www"), endpoint(4, "db2", "WWW")]
        return {1: on_blue, 2: [endpoint(5, "web")]}.get(vni, [])


def names(*exposed: Network) -> PublishedNames:
    """Return the names on a host that is on these networks."""
    ends = SimpleNamespace(of=lambda vni: [each for each in exposed if each.vni == vni])
    exposure = SimpleNamespace(host_endpoints=ends, refusal_reason=lambda _: "it is internal")
    attachments = Attachments()
    return PublishedNames(cast("Any", Records()), cast("Any", exposure), attachments)


@pytest.mark.parametrize("typed", ["db", "DB", "Db"])
def test_a_name_means_one_container_whatever_its_case(typed: str) -> None:
    """The port is stored under the container's own spelling."""
    assert names(BLUE).find(typed, "blue") == (BLUE, "Db")
    assert names(BLUE).find(typed, None) == (BLUE, "Db")


@pytest.mark.parametrize("network", ["blue", None])
def test_an_alias_is_refused_with_its_containers(network: str | None) -> None:
    """Several containers may have it, and a port maps to one."""
    with pytest.raises(ConflictError, match="www is an alias") as caught:
        names(BLUE).find("www", network)

    assert "Db, db2" in caught.value.why


@pytest.mark.parametrize(("network", "where"), [("blue", "blue"), (None, "any network")])
def test_a_name_of_no_container_is_an_error(network: str | None, where: str) -> None:
    """Also on a network that was given; the error says what is not known here."""
    with pytest.raises(NotFoundError, match=f"no container is called wbe on {where}") as caught:
        names(BLUE).find("wbe", network)

    assert ("far" in caught.value.why) == (network is None)


def test_a_name_on_several_networks_is_ambiguous() -> None:
    """Unless this host is on one of them alone."""
    with pytest.raises(ConflictError, match="several networks: blue, red"):
        names(BLUE, RED).find("web", None)
    assert names(RED).find("web", None) == (RED, "web")


def test_a_network_without_this_host_is_refused() -> None:
    """With the reason why this host is not on it."""
    for network in ("blue", None):
        with pytest.raises(ConflictError, match="not exposed") as caught:
            names().find("db", network)
        assert caught.value.why == "it is internal"
