"""Take over from a former identity of this host whose state directory is lost.

Its sandboxes still connect containers, and hold VNIs that the new identity needs. The former
identity is declared gone, because nobody can use it any more; then its objects are removed, and its
containers attached again, with their names and addresses where they can be had. What is to be
attached is on disk before anything is removed.

Owns: what counts as a former identity of this host, and these steps. Does not: attach
(`endpoints.restart`).
"""

from __future__ import annotations

import asyncio
import contextlib

from overlay import limits
from overlay.agent.dataplane.sandbox_names import node_part, vni_of_sandbox
from overlay.agent.endpoints.restart import Restart
from overlay.agent.gossip.context import NodeContext
from overlay.agent.gossip.forget import ForgetService
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.process.controller import Controller
from overlay.agent.runtimes.namespace_owner import owner_of
from overlay.agent.state import documents
from overlay.agent.state.documents import EndedEndpoint, StoredContainer
from overlay.agent.state.identity_trail import IdentityTrail
from overlay.core.dataplane.planning.segments import port_name
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import Scope
from overlay.errors import OverlayError
from overlay.kernel import former_identity as leftovers
from overlay.kernel.host.connected_containers import ConnectedContainer, connected_containers
from overlay.kernel.sandbox.container_namespace import is_bare_container
from overlay.model import Endpoint, NodeId, ip_text, node_text
from overlay.target_kinds import KIND_BY_WORD

_WAIT_S = 60.0
_POLL_S = 0.2


class FormerIdentity(Controller):
    """The identities that this host had before its present one."""

    name = "former identity"
    problem = "objects of this host's former identity are not taken over yet"
    level = "warn"
    event_kind = "state"
    retry_max_s = limits.FORMER_IDENTITY_RETRY_S

    def __init__(
        self,
        context: NodeContext,
        forget_service: ForgetService,
        restart: Restart,
        participation: ParticipationService,
        space: AddressSpace,
        trail: IdentityTrail,
    ) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._forget_service = forget_service
        self._restart = restart
        self._participation = participation
        self._space = space
        self._trail = trail
        trail.note(context.gossip.node_id)

    async def reconcile(self) -> None:
        """Take over from every former identity; raises OverlayError for what has to be retried."""
        await self._wait_for_records()
        for former in self._former():
            await self._take_over(former)
        done = [await self._restart.attach_remembered(word) for word in KIND_BY_WORD]
        if not all(done):
            raise OverlayError(
                "containers are not attached again yet",
                hint="'overlayd events' shows why; the agent retries automatically",
            )

    async def _wait_for_records(self) -> None:
        """Wait until this node knows what members hold, unless there never was another one."""
        await self._gossip.until_may_write()
        store = self._gossip.node.store
        while self._gossip.cluster.seeds or len(store.cards) > 1:
            if await self._gossip.wait_caught_up(_WAIT_S):
                return

    def _former(self) -> list[NodeId]:
        """Return the former identities: those noted, and members that had this host's address.

        An id that begins like this node's own is none: its objects could not be told from those of
        this node, and a member can choose its id and the address in its card.
        """
        own = self._gossip.card
        same_address = [
            card.node_id
            for card in self._gossip.node.store.cards.values()
            if card.node_id != own.node_id
            and (card.address, card.gossip_port) == (own.address, own.gossip_port)
        ]
        found = dict.fromkeys([*self._trail.former(own.node_id), *same_address])
        return [each for each in found if node_part(each) != node_part(own.node_id)]

    async def _take_over(self, former: NodeId) -> None:
        sandboxes = await self._kernel.call(leftovers.sandboxes_of, former)
        for name in sandboxes:
            if await asyncio.to_thread(leftovers.is_held, name):
                return  # an agent runs under that identity
        records = await self._records(former, sandboxes)
        if sandboxes:
            await self._declare_gone(former)
        connected = await self._kernel.call(connected_containers, sandboxes)
        await self._wait_reclaimed(connected)
        remembered = 0
        for found in connected:
            remembered += await self._remember(found, records.get(found.port))
        removed = await self._kernel.call(leftovers.remove_objects, former)
        self._trail.drop(former)
        if removed:
            text = f"removed what {node_text(former)} left, a former identity of this host: "
            text += f"{', '.join(removed)}; containers to attach again: {remembered}"
            self._event_log.record("state", text)

    async def _declare_gone(self, former: NodeId) -> None:
        """Declare the former identity gone.

        Raises OverlayError while members still hold it for alive, which ends within seconds. Its
        sandboxes forward as before until then.
        """
        card = self._directory.card(former)
        if card is None or card.left or self._gossip.node.is_forgotten(former):
            return
        if self._directory.node_state(former) in (MemberState.ALIVE, MemberState.SUSPECT):
            raise OverlayError(
                f"{node_text(former)} was this host, and is not dead yet for the members",
                hint="Its containers keep their connections; this ends by itself within seconds",
            )
        self._forget_service.forget(node_text(former), powered_off=True, force=True)

    async def _wait_reclaimed(self, connected: list[ConnectedContainer]) -> None:
        """Wait until live members own the containers' addresses, or for a bounded time."""
        deadline = self._gossip.transport.now() + limits.FORMER_IDENTITY_RETRY_S
        while self._gossip.transport.now() < deadline:
            if all(map(self._is_owned, connected)):
                return
            await asyncio.sleep(_POLL_S)

    def _is_owned(self, found: ConnectedContainer) -> bool:
        network = self._directory.network_by_vni(vni_of_sandbox(found.sandbox))
        if network is None:
            return True
        ownership = self._space.ownership(network)
        return all(ownership.owner_of(ip) is not None for ip in found.addresses)

    async def _remember(self, found: ConnectedContainer, record: Endpoint | None) -> bool:
        """Write down what to attach again; return False for a container that is not known."""
        target = await asyncio.to_thread(owner_of, found.identity)
        if target is None or not found.addresses:
            return False
        state, vni = self._gossip.state, vni_of_sandbox(found.sandbox)
        rest = target.text.partition(":")[2] or target.text
        rows = []
        with contextlib.closing(target):
            is_bare = target.kind == "netns" and is_bare_container(target.descriptor)
        if is_bare and documents.CONTAINERS.find(state, rest) is None:
            rows.append(documents.CONTAINERS.row(StoredContainer(rest)))
        ended = EndedEndpoint(
            container_id=target.container_id or rest,
            target=target.text,
            vni=vni,
            name=target.name if record is None else record.name,
            ip=ip_text(found.addresses[0]),
            more_ips=[ip_text(ip) for ip in found.addresses[1:]],
            mac=found.mac.hex(),
            ifname=found.ifname,
            gateway=found.default_route,
            aliases=[] if record is None else list(record.aliases),
            labels=[] if record is None else [list(pair) for pair in record.labels],
        )
        state.commit([*rows, documents.ENDED.row(ended)])
        self._restart.remember(ended)
        return True

    async def _records(self, former: NodeId, sandboxes: list[str]) -> dict[str, Endpoint]:
        """Return the records that members have of the former identity's endpoints, by port."""
        found: dict[str, Endpoint] = {}
        for vni in map(vni_of_sandbox, sandboxes):
            network = self._directory.network_by_vni(vni)
            if network is None:
                continue
            async with self._participation.holding_records(network):
                for value in self._gossip.node.store.values_of(former, Scope(vni), "endpoint"):
                    if isinstance(value, Endpoint):
                        found[port_name(value.endpoint_id)] = value
        return found
