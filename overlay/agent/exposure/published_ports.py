"""Published ports: ports of this host that map to containers.

A publication names a container: where that has another address, or is on another host, the port
follows; where no endpoint has the name, nothing answers.

Owns: the publications on disk, the present target of each, and the ports in the host's rules.
Does not: know how rules are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from overlay import limits
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.published_names import PublishedNames
from overlay.agent.exposure.rules import HostRules
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.agent.records.directory import PlacedEndpoint
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.core.dataplane.host_rules import PortForward
from overlay.core.dataplane.published_port import (
    DECLARED_OWNER,
    ENDPOINT_OWNER,
    PortHolder,
    PortPair,
    PortRequest,
    PublishedPort,
    conflicting,
    matches,
)
from overlay.errors import ConflictError
from overlay.kernel.host import default_route, port_check
from overlay.model import Ip, Network, Vni, container_ips, ip_text
from overlay.signals import Signal


class PublishedPortStatus(NamedTuple):
    """A publication and its present targets; `fault` is the reason where there are none."""

    publication: PublishedPort
    targets: tuple[PortForward, ...]
    fault: str


class PublishedPorts(Controller):
    """Keeps this host's published ports at the containers that they name."""

    name = "published ports"
    problem = "published ports do not follow their containers"
    runs_at_start = False  # `start` has set the rules
    event_kind = "publish"

    def __init__(
        self,
        context: NodeContext,
        exposure: ExposureController,
        rules: HostRules,
        attachments: Attachments,
        default_route_moved: Signal[[]],
        interval_s: float,
    ) -> None:
        super().__init__(context.event_log)
        self.interval_s = self.retry_first_s = self.retry_max_s = interval_s
        self.places_changed: Signal[[]] = Signal()
        """Ports of this host were published, or are free again."""
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._exposure = exposure
        self._names = PublishedNames(context.directory, exposure, attachments)
        self._rules = rules
        self._attachments = attachments
        self._known = documents.PUBLISHED_PORTS.load(context.gossip.state)
        self._publishing = asyncio.Lock()  # of two for one port, the second sees the first
        self._refresh_lock = asyncio.Lock()  # the rules get the newest targets
        exposure.exposure_changed.connect(self.endpoints_changed)
        default_route_moved.connect(self.endpoints_changed)

    # --- commands -----------------------------------------------------------------------

    async def publish(
        self, name: str, network_name: str | None, pairs: list[PortPair], host_ip: Ip
    ) -> tuple[Network, list[PublishedPort]]:
        """Publish ports of a name, all or none; return its network and the ports that are new.

        Raises ConflictError for a port that is taken, and the errors of a name that cannot be
        published (`PublishedNames.find`).
        """
        requests = [
            PortRequest(
                pair.protocol, host_ip, range(pair.host_port, pair.host_port + 1), pair.port
            )
            for pair in pairs
        ]
        return await self._publish(name, network_name, requests, owner="")

    async def publish_for(
        self,
        owner: str,
        name: str,
        network_name: str,
        requests: list[PortRequest],
        holder: PortHolder | None = None,
    ) -> None:
        """Publish ports of a name until `withdraw` with the same owner; all or none.

        Those of an endpoint (ENDPOINT_OWNER) end with it by themselves. Nothing, if the owner has
        published already. The container's runtime may keep the ports with sockets of its own.
        Raises the errors of `publish`.
        """
        if requests and not any(each.owner == owner for each in self._known):
            await self._publish(name, network_name, requests, owner, holder)

    async def _publish(
        self,
        name: str,
        network_name: str | None,
        requests: list[PortRequest],
        owner: str,
        holder: PortHolder | None = None,
    ) -> tuple[Network, list[PublishedPort]]:
        network, name = self._names.find(self._names.of_target(name), network_name)
        async with self._publishing:
            fresh: list[PublishedPort] = []
            for request in requests:
                wanted = [
                    PublishedPort(
                        request.protocol, request.host_ip, port, network.vni, name, request.port,
                        owner,
                    )
                    for port in request.host_ports
                ]  # fmt: skip
                mappings = {each.mapping for each in (*self._known, *fresh)}
                if not any(each.mapping in mappings for each in wanted):
                    sizes = self._families(network, request.host_ip)
                    fresh.append(await self._first_free(wanted, fresh, sizes, holder))
            if len(self._known) + len(fresh) > limits.PUBLISHED_PORTS_MAX:
                raise ConflictError(
                    f"a host publishes {limits.PUBLISHED_PORTS_MAX} ports at most",
                    why=f"this one has {len(self._known)}, and {len(fresh)} more were requested",
                    hint="Unpublish what is not needed: overlayd publish ls, overlayd unpublish",
                )
            self._gossip.state.commit(map(documents.PUBLISHED_PORTS.row, fresh))
            self._known += fresh
            await self.refresh()
            self.places_changed.emit()
        for each in fresh:
            self._event_log.record(
                "publish", f"{each.host_binding}/{each.protocol} maps to port {each.port}",
                network=network.name, endpoint=name,
            )  # fmt: skip
        return network, fresh

    async def _first_free(
        self,
        wanted: list[PublishedPort],
        fresh: list[PublishedPort],
        families: tuple[int, ...],
        holder: PortHolder | None,
    ) -> PublishedPort:
        """Return the first of these that nothing on the host blocks; raises ConflictError."""
        known = [*self._known, *fresh]
        allowed = [each for each in wanted if conflicting(each, known) is None]
        if not allowed:
            first = wanted[0]
            taken = conflicting(first, known)
            assert taken is not None, "it is not allowed"
            raise ConflictError(
                f"port {first.host_binding}/{first.protocol} of this host is taken",
                why=f"it is already published for {taken.name}",
                hint=f"overlayd unpublish {taken.name}, or choose another port",
            )
        for each in allowed[: limits.PUBLISH_TRIES_MAX]:
            place = (each.protocol, each.host_ip, each.host_port)
            try:
                self._rules.require_no_ingress(each.protocol, each.host_port)
                await self._kernel.call(port_check.require_free, *place, families, holder)
            except ConflictError as error:
                failure = error
            else:
                return each
        raise failure

    def _families(self, network: Network, host_ip: Ip) -> tuple[int, ...]:
        """Return the sizes in bytes of the addresses to publish on; raises ConflictError."""
        sizes = {len(subnet.base) for subnet in network.subnets}
        if host_ip and len(host_ip) not in sizes:
            raise ConflictError(
                f"network {network.name} has no {'IPv4' if len(host_ip) == 4 else 'IPv6'}",
                why=f"so nothing on it can answer for {ip_text(host_ip)}",
                hint="Leave --host-ip out, or choose an address of the other family",
            )
        return tuple(sorted(sizes)) if not host_ip else (len(host_ip),)

    async def require_free(self, wanted: PublishedPort, network: Network | None) -> None:
        """Raise ConflictError if a port is taken on this host; None: a network to be created."""
        families = (4,) if network is None else self._families(network, wanted.host_ip)
        await self._first_free([wanted], [], families, None)

    async def unpublish(
        self, name: str, network: Network | None, pairs: list[PortPair]
    ) -> list[PublishedPort]:
        """Unpublish ports of a name, all of them where none is given; return them.

        Raises the errors of a name that has no published port and is no known container's.
        """
        name = self._names.of_target(name)
        own = [each for each in self._known if each.name.lower() == name.lower()]
        if not own:
            self._names.require_known(name)
        gone = [
            each
            for each in own
            if (network is None or each.vni == network.vni)
            and (not pairs or any(matches(pair, each) for pair in pairs))
        ]
        await self._drop(gone)
        return gone

    async def endpoint_renamed(self, vni: Vni, before: str, after: str) -> None:
        """Let the ports of a container of this host follow its new name."""
        async with self._publishing:
            renamed = {
                each: each._replace(name=after)
                for each in self._known
                if each.vni == vni and each.name.lower() == before.lower()
            }
            if renamed:
                # A port's document is stored under its place on the host, and so replaced.
                self._gossip.state.commit(map(documents.PUBLISHED_PORTS.row, renamed.values()))
                self._known = [renamed.get(each, each) for each in self._known]
                await self.refresh()

    # --- ports of an owner --------------------------------------------------------------

    def owners(self) -> set[str]:
        """Return the owners of published ports that are neither endpoints nor declared."""
        owners = {each.owner for each in self._known} - {""}
        return {each for each in owners if not each.startswith((ENDPOINT_OWNER, DECLARED_OWNER))}

    def declared_owners(self) -> set[str]:
        """Return the owners of the published ports that the cluster's records declare."""
        return {e.owner for e in self._known if e.owner.startswith(DECLARED_OWNER)}

    def by_command(self) -> list[PublishedPort]:
        """Return the ports that were published by command."""
        return [each for each in self._known if not each.owner]

    async def drop_ended(self) -> None:
        """Unpublish the ports whose owner was an endpoint, and is no longer one of this host."""
        gone = [
            each
            for each in self._known
            if each.owner.startswith(ENDPOINT_OWNER)
            and bytes.fromhex(each.owner.removeprefix(ENDPOINT_OWNER)) not in self._attachments
        ]
        if gone:
            await self._drop(gone)

    def places_of(self, owners: Collection[str]) -> set[tuple[str, Ip, int]]:
        """Return protocol, address and number of the ports that some owners have."""
        return {(e.protocol, e.host_ip, e.host_port) for e in self._known if e.owner in owners}

    async def withdraw(self, owner: str) -> None:
        """Unpublish all ports of an owner."""
        gone = [each for each in self._known if owner and each.owner == owner]
        if gone:
            await self._drop(gone)

    async def name_owned(self, owner: str, name: str) -> None:
        """Let the ports of an owner map to this name, if they do not."""
        before = {(e.vni, e.name) for e in self._known if owner and e.owner == owner}
        for vni, former in before:
            if former != name:
                await self.endpoint_renamed(vni, former, name)

    async def _drop(self, gone: list[PublishedPort]) -> None:
        self._gossip.state.commit(map(documents.PUBLISHED_PORTS.deletion_of, gone))
        self._known = [each for each in self._known if each not in gone]
        await self.refresh()
        self.places_changed.emit()

    # --- targets ------------------------------------------------------------------------

    async def status(self) -> list[PublishedPortStatus]:
        """Return all publications with their targets, in order of port."""
        order = sorted(self._known, key=lambda each: (each.host_port, each.protocol, each.host_ip))
        named = {vni: self._names.on(vni) for vni in {each.vni for each in order}}
        return [
            await self._status_of(each, named[each.vni].get(each.name.lower())) for each in order
        ]

    async def _status_of(
        self, each: PublishedPort, placed: PlacedEndpoint | None
    ) -> PublishedPortStatus:
        network = self._directory.network_by_vni(each.vni)
        if network is None:
            return PublishedPortStatus(each, (), "its network is gone")
        if not self._exposure.host_endpoints.of(each.vni):
            return PublishedPortStatus(
                each, (), f"network {network.name} is not exposed to this host"
            )
        if placed is None:
            return PublishedPortStatus(each, (), f"nothing is called {each.name} on {network.name}")
        own = container_ips(network, placed.endpoint)
        ips = [ip for ip in own if not each.host_ip or len(ip) == len(each.host_ip)]
        attachment = self._attachments.get(placed.endpoint.endpoint_id)
        targets = []
        for ip in ips:
            back = attachment is not None and await self._kernel.call(
                default_route.leads_out_by,
                attachment.netns_path,
                attachment.netns_identity,
                attachment.ifname,
                len(ip),
            )
            place = (each.protocol, each.bound_ip, each.host_port)
            targets.append(PortForward(*place, ip, each.port, borrowed=not back))
        return PublishedPortStatus(
            each, tuple(targets), "" if targets else f"{each.name} has no such address"
        )

    # --- reconciling --------------------------------------------------------------------

    async def start(self) -> None:
        """Set the ports in the rules before these are first written."""
        await self._update_rules()
        if any(each.owner.startswith(ENDPOINT_OWNER) for each in self._known):
            self.trigger()  # their endpoints may have ended meanwhile

    async def refresh(self) -> None:
        """Update the rules to the present targets."""
        await self._update_rules()
        await self._rules.apply()

    async def _update_rules(self) -> None:
        async with self._refresh_lock:
            shown = await self.status() if self._known else []
            self._rules.set_ports(target for each in shown for target in each.targets)

    async def endpoint_attached(self, vni: Vni) -> None:
        """Map ports to an endpoint of this host before its attach returns."""
        if self.has_port_on(vni):
            await self.refresh()

    def endpoints_changed(self, vni: int | None = None) -> None:
        """Have a pass run soon if endpoints of a network (None: of any) matter to a port."""
        if self.has_port_on(vni):
            self.trigger()

    def holder_of(self, protocol: str, port: int, size: int) -> str | None:
        """Return the container that has a port of all the host's addresses of a size, or None."""
        for each in self._known:
            is_on_all = not each.bound_ip and len(each.host_ip) in (0, size)
            if is_on_all and (each.protocol, each.host_port) == (protocol, port):
                return each.name
        return None

    def has_port_on(self, vni: int | None) -> bool:
        """Return whether a port maps to a network (None: to any)."""
        return any(vni is None or each.vni == vni for each in self._known)

    async def reconcile(self) -> None:
        """Drop publications of removed networks and ended endpoints, then update the rules."""
        await self._forget_removed()
        await self.drop_ended()
        await self.refresh()

    def rest_s(self) -> float:
        """Return the time in which many changes of endpoints wait for one pass."""
        return limits.PUBLISH_CHECK_INTERVAL_S

    async def _forget_removed(self) -> None:
        gone = [p for p in self._known if self._directory.network_by_vni(p.vni) is None]
        if gone and self._gossip.node.caught_up:
            await self._drop(gone)
