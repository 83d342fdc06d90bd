"""Construct what answers and redirects containers' questions for names.

Owns: the construction order within these features, and their common start and end. Does not: answer
or redirect anything.
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.declared.service import DeclaredService
from overlay.agent.dns.clients import DnsClients
from overlay.agent.dns.docker_resolvers import DockerResolvers
from overlay.agent.dns.records.custom_records import CustomRecords
from overlay.agent.dns.records.removed_records import RemovedRecords
from overlay.agent.dns.resolver import Resolver
from overlay.agent.dns.resolver_redirects import ResolverRedirects
from overlay.agent.dns.service import DnsService
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.runtime_endpoints import RuntimeEndpoints
from overlay.agent.gossip.context import NodeContext
from overlay.agent.state.attachments import Attachments


class NameResolution:
    """The components behind DNS in containers and `overlayd dns`."""

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        declared: DeclaredService,
        reconciler: Reconciler,
        attacher: EndpointAttacher,
        runtime_endpoints: RuntimeEndpoints,
        *,
        domain: str,
    ) -> None:
        clients = DnsClients(context.gossip.state, context.directory, attachments)
        self.custom_records = CustomRecords(context.gossip, context.directory, declared)
        self.removed_records = RemovedRecords(context, declared, self.custom_records)
        self.resolver = Resolver(context.directory, clients, domain)
        container_changed = attacher.context.container_changed
        self._redirects = ResolverRedirects(
            context, attachments, reconciler.resolvers, container_changed
        )
        self._docker_resolvers = DockerResolvers(
            context, attachments, self.resolver, container_changed
        )
        self.service = DnsService(
            self.resolver,
            clients,
            reconciler,
            context.kernel,
            context.event_log,
            runtime_endpoints.resolvers_changed,
            attacher.endpoint_attached,
        )

    async def start(self) -> None:
        """Redirect the queries of the containers that are attached."""
        await self._redirects.ensure_all()
        await self._docker_resolvers.ensure_all()

    async def close(self) -> None:
        """Close the servers, and end the redirections that need this agent."""
        self.service.close_all()
        await self._redirects.close()
        await self._docker_resolvers.close()
