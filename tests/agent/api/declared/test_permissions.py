"""The group may not do by a file what it may not do by single commands."""

from __future__ import annotations

import os
from ipaddress import IPv4Network

import pytest
from overlay.agent.api.declared.permissions import require_allowed
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.apply.host.items import plug_item
from overlay.agent.apply.network_items import network_item
from overlay.agent.apply.service_items import service_item
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep, SettingChange
from overlay.core.declared.host_objects import DeclaredPlug
from overlay.core.services.service import Service, ServiceIngress, ServicePort
from overlay.errors import ForbiddenError
from overlay.model import PORT_SECURITY_OFF_LABEL, Network, NodeId, Subnet, Vni, parse_ip

ROOT = ApiCaller(0, frozenset())
MEMBER = ApiCaller(os.geteuid() + 1001, frozenset({12_300}))


def service(port: int) -> DeclaredItem:
    """Return a service that answers a port of every host."""
    ingress = ServiceIngress(port, 80, sources=(IPv4Network("10.0.0.0/8"),))
    ports = (ServicePort(80, 8080),)
    return service_item(Service("web", Vni(7), (), ports, ingress=(ingress,)), "blue")


def network(subnet: str, *, labels: tuple[tuple[str, str], ...] = ()) -> DeclaredItem:
    """Return a network."""
    base, length = subnet.split("/")
    gateway = parse_ip(base.rsplit(".", 1)[0] + ".1")
    subnets = (Subnet(parse_ip(base), int(length), gateway),)
    found = Network(Vni(7), "blue", subnets, NodeId(b"c" * 16), labels=labels)
    return network_item(found)


PLUG = plug_item(DeclaredPlug("vm2", "blue", "eth2", "default"))
OPEN = network("10.32.0.0/24", labels=(PORT_SECURITY_OFF_LABEL,))
REFUSED = {
    "service": PlannedStep("create", service(22)),
    "changed service": PlannedStep("change", service(22), (SettingChange("publish", (), ("",)),)),
    "port security": PlannedStep("create", OPEN),
    "changed port security": PlannedStep(
        "change", OPEN, (SettingChange("port_security", before=True, after=False),)
    ),
    "plug": PlannedStep("create", PLUG),
    "unplugged": PlannedStep("remove", PLUG),
    "public subnet": PlannedStep("create", network("8.8.8.0/24")),
}
ALLOWED = {
    "service": PlannedStep("create", service(8080)),
    "other change of a service": PlannedStep(
        "change", service(22), (SettingChange("local_first", before=False, after=True),)
    ),
    "removal": PlannedStep("remove", service(22)),
    "network": PlannedStep("create", network("10.32.0.0/24")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_the_group_does_no_act_of_root(name: str) -> None:
    """Root may have it done."""
    with pytest.raises(ForbiddenError, match="only root may"):
        require_allowed(MEMBER, [PlannedStep("create", service(8080)), REFUSED[name]])
    require_allowed(ROOT, [REFUSED[name]])


@pytest.mark.parametrize("name", ALLOWED)
def test_a_file_of_the_group_does_the_rest(name: str) -> None:
    """The requests that the group may make by single commands."""
    require_allowed(MEMBER, [ALLOWED[name]])
