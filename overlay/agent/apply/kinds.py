"""The kinds of object that a file declares."""

from __future__ import annotations

from typing import NamedTuple

from overlay.agent.apply.dns import RecordObjects
from overlay.agent.apply.host.expose import ExposureObjects
from overlay.agent.apply.host.items import DNS, EXPOSE, PLUG, PUBLISH
from overlay.agent.apply.host.plug import PlugObjects
from overlay.agent.apply.host.publish import PortObjects
from overlay.agent.apply.networks import NetworkObjects
from overlay.agent.apply.policies import PolicyObjects
from overlay.agent.apply.routers import RouterObjects
from overlay.agent.apply.service import ApplyService
from overlay.agent.apply.services import ServiceObjects
from overlay.agent.declared.service import DeclaredService
from overlay.agent.dns.records.custom_records import CustomRecords
from overlay.agent.exposure.service import ExposureService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.service import NetworkService
from overlay.agent.plug.service import PlugService
from overlay.agent.policy.policies import Policies
from overlay.agent.router.routers import Routers
from overlay.agent.services.registry import ServiceRegistry
from overlay.core.apply.items import NETWORK, POLICY, ROUTER, SERVICE


class Registries(NamedTuple):
    """The services that create, change and remove the objects of the whole cluster."""

    networks: NetworkService
    services: ServiceRegistry
    policies: Policies
    routers: Routers


class HostServices(NamedTuple):
    """The services of this host, which makes what is declared of it."""

    records: CustomRecords
    exposure: ExposureService
    plugs: PlugService


def apply_service(
    context: NodeContext,
    declared: DeclaredService,
    registries: Registries,
    host: HostServices,
) -> ApplyService:
    """Return what applies files, with each kind of object that they may declare."""
    directory = context.directory
    return ApplyService(
        {
            NETWORK: NetworkObjects(directory, registries.networks),
            SERVICE: ServiceObjects(directory, registries.services),
            POLICY: PolicyObjects(directory, registries.policies.registry),
            ROUTER: RouterObjects(directory, registries.routers.registry),
            DNS: RecordObjects(directory, declared, host.records),
            EXPOSE: ExposureObjects(directory, declared, host.exposure),
            PUBLISH: PortObjects(directory, declared, host.exposure),
            PLUG: PlugObjects(directory, declared, host.plugs),
        },
        context.event_log,
    )
