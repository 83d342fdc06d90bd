"""Networks as a plan compares them: both directions, and an export that changes nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.agent.api.declared.exported_file import exported
from overlay.agent.api.declared.file_reader import read_file
from overlay.agent.apply.host.items import exposure_item, plug_item, port_item, record_item
from overlay.agent.apply.network_items import network_item, settings_spec_of, spec_of
from overlay.agent.apply.policy_items import policy_item, policy_of
from overlay.agent.apply.service_items import service_item, service_of
from overlay.agent.networks.settings import changed
from overlay.core.apply.plan import plan
from overlay.core.dataplane.network_drivers import labels_of
from overlay.core.declared.host_objects import (
    DeclaredExposure,
    DeclaredPlug,
    DeclaredPort,
    DeclaredRecord,
)
from overlay.core.declared.network_options import with_options
from overlay.core.policy.policy import Policy, PortRange, parse_peer
from overlay.core.services.service import HealthCheck, Service, ServiceIngress, ServicePort
from overlay.errors import NotFoundError, OverlayError
from overlay.model import (
    ANY_NAME_LABEL,
    DEFAULT_DENY_LABEL,
    PORT_SECURITY_OFF_LABEL,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    parse_ip,
)

if TYPE_CHECKING:
    from overlay.agent.components import Components

CREATOR = NodeId(b"c" * 16)
IPV4 = Subnet(
    parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.9"), (parse_ip("10.32.8.0"), 21),
    (("nas", parse_ip("10.32.0.3")),), 24,
)  # fmt: skip
IPV6 = Subnet(parse_ip("fd40::"), 64, parse_ip("fd40::1"))
PLAIN = Subnet(parse_ip("10.33.0.0"), 16, parse_ip("10.33.0.1"))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw a network of any kind that an agent creates."""
    driver = draw(st.sampled_from(["overlay", "bridge", "macvlan"]))
    encrypted = driver == "overlay" and draw(st.booleans())
    labels = labels_of(driver, "eth1" if driver == "macvlan" else "", encrypted=encrypted)
    labels += draw(st.sampled_from([(), (PORT_SECURITY_OFF_LABEL,), (ANY_NAME_LABEL,)]))
    labels += () if driver == "macvlan" else draw(st.sampled_from([(), (DEFAULT_DENY_LABEL,)]))
    labels += draw(st.sampled_from([(), (("team", "a=b"),), (("a", "1"), ("b", ""))]))
    limits: list[dict[str, int | str]] = [
        {}, {"mtu": 1300}, {"storm": 100, "allow_non_ip": "llc,0x88f7"},

    ]  # fmt: skip
    if driver == "overlay":
        limits.append({"shared_rate": 64_000})
    options = {} if driver == "macvlan" else draw(st.sampled_from(limits))
    owner = draw(st.sampled_from([None, "shop"]))
    return Network(
        Vni(draw(st.integers(1, 100))),
        draw(st.sampled_from(["blue", "Red.x"])),
        draw(st.sampled_from([(IPV4,), (IPV4, IPV6), (IPV6, PLAIN)])),
        CREATOR,
        internal=draw(st.booleans()),
        labels=tuple(sorted(with_options(labels, options, owner))),
        isolate_subnets=driver != "macvlan" and draw(st.booleans()),
    )


def service(owner: str) -> Service:
    """Return a service with every setting."""
    return Service(
        "front", Vni(7), (parse_ip("10.32.0.7"),),
        (ServicePort(53, 53, "udp"), ServicePort(80, 8080, "tcp", "http")),
        selector=(("app", "x=y"),), backends=("api", "web"), weights=(("web", 2),),
        drained=("api",), affinity=True, local_first=True,
        check=HealthCheck("http", "/up", 5.0, 1.0, 3),
        ingress=(ServiceIngress(8080, 80, "tcp", "host", (ip_network("10.0.0.0/8"),)),),
        labels=(("a", "b"), *((("overlayd.owner", owner),) if owner else ())),
    )  # fmt: skip


def policy(owner: str) -> Policy:
    """Return a policy with every setting."""
    return Policy(
        "db", Vni(7), "deny",
        tuple(map(parse_peer, ("cidr:10.0.0.0/8", "label=app=x=y"))), (parse_peer("host"),),
        (PortRange("icmp"), PortRange("tcp", 80, 90)), True,
        (("a", "b"), *((("overlayd.owner", owner),) if owner else ())),
    )  # fmt: skip


def components(*found: Network) -> Components:
    """Return what a file is read with: some networks, and the hosts vm1 and vm2."""
    names = {network.name.lower(): network for network in found}

    def node(name: str) -> str:
        if name not in ("vm1", "vm2"):
            raise NotFoundError(f"there is no node {name!r}")
        return name

    directory = SimpleNamespace(
        find_network=lambda name: names.get(name.lower()),
        node=node,
        node_name=lambda name: name,
        own=CREATOR,
    )
    resolver = SimpleNamespace(local_name=lambda _, name: name.lower())
    resolution = SimpleNamespace(resolver=resolver)
    return cast("Components", SimpleNamespace(directory=directory, names=resolution))


@given(networks(), st.booleans())
def test_an_export_applied_changes_nothing(network: Network, own: bool) -> None:
    """All kinds of object, with and without an owner."""
    owner = "shop" if own else ""
    present = [
        network_item(network),
        record_item(DeclaredRecord(network.name, "db", (parse_ip("10.0.0.1"),), owner)),
        exposure_item(DeclaredExposure("vm2", network.name, True, owner)),
        port_item(DeclaredPort("vm1", "udp", Ip(b""), 53, network.name, "web", 53, owner)),
        plug_item(DeclaredPlug("vm2", network.name, "eth2", "default", owner)),
        plug_item(DeclaredPlug("vm2", network.name, "eth3.7", "lab", owner)),
        service_item(service(owner), network.name),
        policy_item(policy(owner), network.name),
        port_item(DeclaredPort("vm1", "tcp", parse_ip("fd00::1"), 80, network.name, "web", 8080)),
    ]
    chosen = [item for item in present if not own or item.owner == owner]
    file = cast(
        "dict[str, Any]", {"schema": "overlayd.export/v1", **exported(chosen, owner or None)}
    )

    found = read_file(file, components(network))

    assert found.owner == owner
    assert plan(found.items, present, owner=owner, prune=True) == []
    (read,) = (service_of(item) for item in found.items if item.kind == "service")
    assert replace(read, vni=Vni(7), labels=service("").labels) == service("")
    (denies,) = (policy_of(item) for item in found.items if item.kind == "policy")
    assert replace(denies, vni=Vni(7), labels=policy("").labels) == policy("")


@given(networks())
def test_a_network_is_created_as_it_was(network: Network) -> None:
    """An exported network that was removed comes back with every setting."""
    spec = spec_of(network_item(network))
    labels = labels_of(spec.driver, spec.parent, encrypted=spec.encrypted)

    assert tuple(sorted((*spec.labels, *labels))) == network.labels
    assert (spec.name, spec.vni, spec.internal) == (network.name, network.vni, network.internal)
    assert changed(network, settings_spec_of(network_item(network))) == network


@pytest.mark.parametrize(
    ("file", "what", "path"),
    [
        ({"netwrk": []}, "unknown field 'netwrk'", "netwrk"),
        ({"network": {"name": "x"}}, "network must be a list", "network"),
        ({"network": [{"nme": "x"}]}, "unknown field 'nme'", "network[0].nme"),
        ({"network": [{"name": "x"}, {}]}, "name is missing", "network[1].name"),
        ({"network": [{"name": "x", "subnets": ["1.2.3.4/8"]}]}, "within a subnet",
         "network[0].subnets[0].subnet"),
        ({"network": [{"name": "x", "subnets": [{"subnet": "10.0.0.0/8", "gateway": 7}]}]},
         "gateway must be text", "network[0].subnets[0].gateway"),
        ({"network": [{"name": "x", "labels": {"overlayd.a": "b"}}]}, "reserved",
         "network[0].labels"),
        ({"network": [{"name": "x", "rate_in": 5}]}, "too low", "network[0].rate_in"),
        ({"network": [{"name": "x", "shared_rate": 5}]}, "too low", "network[0].shared_rate"),
        ({"network": [{"name": "x", "storm": 5}]}, "too low", "network[0].storm"),
        (
            {"network": [{"name": "x", "allow_non_ip": "0x0800"}]},
            "cannot be allowed",
            "network[0].allow_non_ip",
        ),
        ({"dns": [{"network": "x", "name": "y", "ips": []}]}, "y has no address",
         "dns[0].ips"),
        ({"expose": [{"network": "x", "host": "vm9"}]}, "no node 'vm9'", "expose[0]"),
        ({"publish": [{"host": "vm1", "network": "x", "name": "y", "ports": ["0"]}]},
         "invalid port", "publish[0].ports"),
        ({"publish": [
            {"host": "vm1", "network": "x", "name": "y", "ports": ["80"]},
            {"host": "vm1", "network": "x", "name": "z", "ports": ["80"], "host_ip": "10.0.0.1"},
        ]}, "taken in this file", "publish[1]"),
        ({"owner": "a b"}, "not a valid name", "owner"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_path(file: dict[str, Any], what: str, path: str) -> None:
    """The command line finds the line of the path."""
    with pytest.raises(OverlayError, match=what) as caught:
        read_file(file, components())

    assert caught.value.field == path


def test_what_a_file_leaves_open_may_be_anything() -> None:
    """The VNI, the subnets, a gateway, and the IPv6 subnet that was chosen."""
    network = Network(Vni(7), "blue", (IPV4, IPV6), CREATOR)
    block = {"subnet": "10.32.0.0/16", "ip_range": "10.32.8.0/21", "block_length": 24,
             "auxiliary": {"nas": "10.32.0.3"}}  # fmt: skip
    for table in ({"name": "BLUE"}, {"name": "blue", "subnets": [block], "ipv6": True}):
        items = read_file({"network": [table]}, components(network)).items

        assert plan(items, [network_item(network)]) == []
