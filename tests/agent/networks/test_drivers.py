"""Network drivers: the choice of one, and the options that each refuses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.networks.drivers.endpoint_subnets import subnets_of
from overlay.agent.networks.drivers.registry import NetworkDrivers
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import (
    BRIDGE,
    CAPABILITIES,
    IPVLAN,
    MACVLAN,
    OVERLAY,
    has_sandbox,
    has_tunnel,
    labels_of,
)
from overlay.errors import ConflictError, UsageError
from overlay.model import Endpoint, Mac, Network, NodeId, Subnet, Vni, parse_ip

MAC = Mac(bytes.fromhex("020000000001"))


def network(driver: str, vni: int = 7) -> Network:
    """Return a network of a driver, or of one that this version does not know."""
    found = CAPABILITIES.get(driver)
    parent = "eth1" if found is not None and found.needs_parent else ""
    subnet = Subnet(parse_ip("10.1.0.0"), 24, parse_ip("10.1.0.1"))
    labels = labels_of(driver, parent)
    return Network(Vni(vni), f"net{vni}", (subnet,), NodeId(bytes(16)), labels=labels)


def attachment(vni: int, parent: str) -> Attachment:
    """Return an attachment with a port of a sandbox, or with an interface on a parent."""
    return Attachment(
        endpoint_id="00" * 8, vni=vni, target="netns:a", netns_path="/run/netns/a",
        netns_identity=(1, 2), container_id=None, ifname="eth0", port="ve1", subnet_index=0,
        gateway=True, plugged=True, parent=parent,
    )  # fmt: skip


def drivers(*networks: Network) -> NetworkDrivers:
    """Return the drivers of a node that knows these networks."""
    known = {each.vni: each for each in networks}
    context = SimpleNamespace(
        directory=SimpleNamespace(network_by_vni=known.get),
        gossip=SimpleNamespace(state=None),
        kernel=None,
        event_log=None,
    )
    reconciler = cast("Any", SimpleNamespace(runtime=lambda _vni: None))
    return NetworkDrivers(cast("Any", context), reconciler, Attachments())


@pytest.mark.parametrize("name", CAPABILITIES)
def test_each_kind_of_network_has_a_driver(name: str) -> None:
    """The table of capabilities and the registry list the same drivers."""
    found = drivers().of(network(name))

    assert found is not None
    assert found.name == name


def test_a_kind_of_a_newer_version_has_none() -> None:
    """Nothing is attached to it here, and nothing is tunneled for it."""
    unknown = network("geneve")

    assert drivers().of(unknown) is None
    assert not has_tunnel(unknown)
    assert has_sandbox(unknown)


@pytest.mark.parametrize("name", CAPABILITIES)
def test_an_attachment_has_the_driver_of_its_network(name: str) -> None:
    """Also each of those that make interfaces of the same form."""
    parent = "eth1" if CAPABILITIES[name].needs_parent else ""

    assert drivers(network(name)).of_attachment(attachment(7, parent)).name == name


@pytest.mark.parametrize(
    ("parent", "names"), [("eth1", {MACVLAN, IPVLAN}), ("", {OVERLAY, BRIDGE})]
)
def test_an_attachment_outlives_its_network(parent: str, names: set[str]) -> None:
    """A driver that makes such interfaces removes it, whatever has the VNI now."""
    left = attachment(7, parent)

    for now in ([], [network(MACVLAN)], [network(OVERLAY)], [network("geneve")]):
        assert drivers(*now).of_attachment(left).name in names


@pytest.mark.parametrize(
    ("name", "mac", "rates", "field"),
    [
        (MACVLAN, None, (1000, None), "rate_in"),
        (IPVLAN, None, (None, 1000), "rate_out"),
        (IPVLAN, MAC, (None, None), "mac"),
    ],
)
def test_an_unsupported_option_is_refused(
    name: str, mac: Mac | None, rates: tuple[int | None, int | None], field: str
) -> None:
    """The error names the field and the driver."""
    with pytest.raises(UsageError, match=f"driver {name}") as refused:
        drivers().require(network(name)).require_supported(mac, rates)
    assert refused.value.field == field


@pytest.mark.parametrize("name", [OVERLAY, BRIDGE])
def test_networks_with_a_sandbox_support_all_options(name: str) -> None:
    """A MAC and rates both ways."""
    drivers().require(network(name)).require_supported(MAC, (1000, 1000))


def test_an_endpoint_of_other_subnets_is_not_connected() -> None:
    """Another network may have won its VNI since it was attached; repairs must outlive that."""
    known = network(OVERLAY)
    inside, outside = parse_ip("10.1.0.9"), parse_ip("10.2.0.9")
    endpoint = Endpoint(bytes(8), known.vni, "web", MAC, (inside,))

    assert subnets_of(known, endpoint, 0) == list(known.subnets)
    for other, index in ((endpoint, 1), (replace(endpoint, ips=(inside, outside)), 0)):
        with pytest.raises(ConflictError, match="has other subnets than when it was attached"):
            subnets_of(known, other, index)
