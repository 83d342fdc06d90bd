"""One attach on a simulated host: the steps of `core.attach_order`.

Owns: the tries of an attach, the request for addresses, the wait for confirmations. Does not: the
order of the steps, which is the agent's own.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from overlay import limits
from overlay.core.attach_order import attach_endpoint
from overlay.core.dataplane.link_state import Port
from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.spread import OwnerSearch
from overlay.core.mtu import overlay_mtu
from overlay.core.protocol.messages import GrantRequest
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope, Segment
from overlay.errors import OverlayError, TimedOutError
from overlay.model import Endpoint, Ip, Network, NodeId, Vni, mac_for
from overlay.sim.host.coroutines import Promise, Task, checkpoint
from overlay.sim.host.disk import AttachmentRow
from overlay.sim.host.host import UNDERLAY_MTU, Host
from overlay.sim.host.kernel import Container
from overlay.sim.host.reconciler import Reconciler

TRY_S: Final = 0.5  # as the agent: a request for addresses is repeated under its id
_TRIES: Final = 12
_GRANT_SIZE: Final = 16  # small, so that a simulated network needs many grants


class PendingConfirmation(NamedTuple):
    """The nodes that were asked to confirm an endpoint, and when."""

    node_ids: tuple[NodeId, ...]
    since: float


class RefusalCheck(Protocol):
    """Checks that no attach fails while an owner that can be reached has free space."""

    def reachable_space(self, host: Host, network: Network, index: int) -> dict[NodeId, Intervals]:
        """Return what owners that the host can reach have free."""

    def check(
        self, host: Host, network: Network, index: int, before: dict[NodeId, Intervals]
    ) -> None:
        """Check an attach that gives up, and began with that reachable space."""


class AttachLedger(Protocol):
    """The world's record of running containers."""

    def plugged(self, host: Host, container: Container) -> None:
        """Record a container's new interface."""

    def unplugged(self, host: Host, container: Container) -> None:
        """Record that a container's interface is gone."""

    def confirmed(self, host: Host, container: Container, asked: PendingConfirmation) -> None:
        """Check that the nodes that confirmed the container really reach it."""

    @property
    def refusals(self) -> RefusalCheck:
        """The check of attaches that find no address."""


class Participant(Protocol):
    """The interface of an agent that an attach uses."""

    @property
    def host(self) -> Host:
        """The host that the agent runs on."""

    @property
    def reconciler(self) -> Reconciler:
        """The sandboxes of the host."""

    @property
    def ledger(self) -> AttachLedger:
        """The world's record of running containers."""

    def may_attach(self) -> bool:
        """Return whether the host may write, and has completed its start."""

    def disconnect(self, endpoint_id: bytes) -> None:
        """Remove a container's interface, if it has one."""

    def withdraw(self, endpoint: Endpoint) -> list[Segment]:
        """Delete an endpoint of this host durably.

        Returns the records that announce it.
        """

    def end_unused(self, vni: Vni) -> list[Segment]:
        """Remove the sandbox if nothing needs it.

        Returns the records that announce it.
        """


@dataclass(slots=True)
class PendingAttach:
    """One attach as asked for, and how far the request for its address is."""

    network: Network
    subnet_index: int
    name: str
    tries: int = 0


class _Chance(enum.Enum):
    """The reason to look for an address again."""

    TRY = enum.auto()  # the time between two tries is over
    GRANT = enum.auto()  # a grant came
    REFUSED = enum.auto()  # an owner refused: the next one is asked at once


class Confirmations:
    """The confirmations that attaches of one agent wait for."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pending: dict[
            int, tuple[PendingConfirmation, Promise[PendingConfirmation | None]]
        ] = {}

    def start(self) -> None:
        """Forget all of them, and follow those of the agent that has just started."""
        self._pending.clear()
        assert self._host.node is not None
        self._host.node.confirmations.confirmed.connect(self._complete)

    async def wait(self, wait_id: int) -> PendingConfirmation | None:
        """Return the nodes that have confirmed, once all live ones have.

        Returns None if too late.
        """
        assert self._host.node is not None
        asked = PendingConfirmation(
            self._host.node.unconfirmed_nodes(wait_id), self._host.schedule.now
        )
        promise: Promise[PendingConfirmation | None] = Promise()
        self._pending[wait_id] = (asked, promise)
        self._host.later(limits.ATTACH_CONFIRM_TIMEOUT_S, self._give_up, wait_id)
        return await promise

    def _give_up(self, wait_id: int) -> None:
        _asked, promise = self._pending.pop(wait_id, (None, None))
        if promise is not None and self._host.node is not None:
            self._host.node.cancel_confirmation(wait_id)
            promise.resolve(None)

    def _complete(self, wait_id: int, confirmed_by: list[NodeId]) -> None:
        """Note that all live nodes have confirmed."""
        asked, promise = self._pending.pop(wait_id, (None, None))
        if asked is not None and promise is not None:
            node_ids = tuple(each for each in asked.node_ids if each in confirmed_by)
            promise.resolve(PendingConfirmation(node_ids, asked.since))

    def dismiss(self, node_id: NodeId) -> None:
        """Note that nobody waits for a dead node any longer."""
        for wait_id, (asked, promise) in list(self._pending.items()):
            others = tuple(other for other in asked.node_ids if other != node_id)
            self._pending[wait_id] = (PendingConfirmation(others, asked.since), promise)


class SimAttach:
    """One attach under way."""

    def __init__(
        self, agent: Participant, request: PendingAttach, confirmations: Confirmations
    ) -> None:
        self.request = request
        self.failed = False
        self.placed = False  # it has its address
        self.task = Task(agent.host.crash_point)
        self._agent = agent
        self._host = agent.host
        self._confirmations = confirmations
        self._chance: Promise[_Chance] = Promise()
        self._segments: list[Segment] = []
        self._tried = False  # the last try found the host ready
        self._owner_search = OwnerSearch(lambda: self._host.environment.rng.randbytes(8))

    @property
    def is_pending(self) -> bool:
        """Return whether the attach still waits for its sandbox or its address."""
        return not self.placed and not self.failed and not self.task.killed

    def start(self) -> None:
        """Run the attach as far as it goes without waiting."""
        self.task.start(self._run())

    async def _run(self) -> None:
        try:
            await attach_endpoint(self)
        except OverlayError:
            self.failed = True

    # --- tries --------------------------------------------------------------------------

    def _try(self) -> bool:
        """Count a try.

        Returns whether the host has the network's sandbox, ready for a port.
        """
        request = self.request
        request.tries += 1
        self._tried = False
        if request.tries > _TRIES:
            raise TimedOutError(f"no address for {request.name}")
        self._host.later(TRY_S, self._try_again)
        if not self._agent.may_attach():
            return False
        if request.network.vni not in self._agent.reconciler.view.networks():
            return False
        self._tried = True
        part = Participation(request.network.vni, forwards=True)
        if not self._agent.reconciler.view.takes_part(self._host.node_id, part):
            self._host.publish(self._host.commit(CLUSTER_SCOPE, [part]))
        return self._agent.reconciler.open(request.network)

    def _try_again(self, _: Any = None) -> None:
        if not self.is_pending:
            return
        self._resume(_Chance.TRY)
        if self._tried:
            self._host.flush()

    def grants_changed(self) -> None:
        """Look for an address again: a grant may have come."""
        if self._owner_search.is_begun:
            self._resume(_Chance.GRANT)

    def refused(self, request_id: bytes) -> None:
        """Ask the next owner, if a request of this attach was refused."""
        if self._owner_search.refused(request_id):
            self._resume(_Chance.REFUSED)

    def _resume(self, chance: _Chance) -> None:
        waiting, self._chance = self._chance, Promise()
        waiting.resolve(chance)

    async def _ready(self) -> None:
        """Wait for a try at which the host is ready."""
        while not self._try():
            await self._chance

    # --- the steps ----------------------------------------------------------------------

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Nothing to keep away: each container of the simulator is attached once."""
        return nullcontext()

    async def find_attached(self) -> None:
        """Return None: each container of the simulator is attached once."""

    @asynccontextmanager
    async def participating(self) -> AsyncIterator[None]:
        """Take part in the network, with a sandbox, as soon as the host is ready."""
        try:
            await self._ready()
            yield
        except OverlayError:
            self.failed = True
            if self.request.network.vni in self._host.kernel.sandboxes:
                segments = self._agent.end_unused(self.request.network.vni)
                if segments:
                    self._host.publish(segments)
                    self._host.flush()
            raise

    def choosing_address(self) -> AbstractAsyncContextManager[None]:
        """Lock nothing: no other code runs between choice and commit."""
        return nullcontext()

    async def own_address(self) -> Ip:
        """Return a free address, from own space or from a grant that is asked for."""
        host, request = self._host, self.request
        chance = _Chance.TRY
        place = (host, request.network, request.subnet_index)
        before: dict[NodeId, Intervals] | None = None
        while True:
            assert host.addressing is not None
            ip = host.addressing.pick(request.network, request.subnet_index, host.schedule.now)
            if ip is not None:
                return ip
            if before is None:
                before = self._agent.ledger.refusals.reachable_space(*place)
            if chance is not _Chance.GRANT:
                self._ask()
            chance = await self._chance
            try:
                while chance is _Chance.TRY and not self._try():
                    chance = await self._chance
            except TimedOutError:
                self._agent.ledger.refusals.check(*place, before)
                raise

    def _ask(self) -> None:
        host, request = self._host, self.request
        assert host.node is not None
        assert host.addressing is not None
        reachable = set(host.node.membership.live())
        owners = host.addressing.grant_candidates(request.network, request.subnet_index, reachable)
        found = self._owner_search.next_owner(owners)
        if found is None:
            return
        owner, request_id = found
        subnet = request.network.subnets[request.subnet_index]
        message = GrantRequest(
            request_id, request.network.vni, subnet.base, _GRANT_SIZE, exact=False
        )
        host.node.send_to(owner, message)

    def commit(self, address: Ip) -> Container:
        """Make the endpoint durable."""
        host, request = self._host, self.request
        self.placed = True
        endpoint_id = host.environment.rng.randbytes(8)
        endpoint = Endpoint(
            endpoint_id,
            request.network.vni,
            request.name,
            mac_for(request.network.vni, address),
            (address,),
        )
        container = Container(endpoint, f"ve{endpoint_id[:6].hex()}", request.subnet_index)
        self._segments = host.commit(
            Scope(request.network.vni),
            [endpoint],
            rows=[AttachmentRow(endpoint_id, container)],
        )
        return container

    async def program(self, endpoint: Container) -> Container:
        """Make the interface; the reconciler programs what else the plan asks for."""
        host = self._host
        mtu = overlay_mtu(UNDERLAY_MTU, host.address)
        port = Port(endpoint.port, mtu, f"br{endpoint.subnet_index}")
        host.kernel.plug(endpoint, port)
        self._agent.ledger.plugged(host, endpoint)
        await checkpoint()
        self._agent.reconciler.wake(Scope(endpoint.endpoint.vni))
        return endpoint

    async def undo(self, endpoint: Container) -> None:
        """Delete the endpoint, unless the agent was killed.

        In that case the next start deletes it.
        """
        if not self.task.killed:
            self._agent.withdraw(endpoint.endpoint)
            self._agent.disconnect(endpoint.endpoint.endpoint_id)

    async def attached(self, endpoint: Container) -> None:
        """Nothing: simulated hosts are on no network themselves."""

    async def announce(self, endpoint: Container) -> Container:
        """Publish the records and wait for confirmations, with a timeout."""
        wait_id = self._host.publish(self._segments, confirm=True)
        if wait_id is not None:
            asked = await self._confirmations.wait(wait_id)
            if asked is not None:
                self._agent.ledger.confirmed(self._host, endpoint, asked)
        return endpoint


class SimDetach:
    """One detach."""

    def __init__(self, agent: Participant, container: Container) -> None:
        self._agent = agent
        self._container = container
        self._segments: list[Segment] = []

    def withdraw(self) -> None:
        """Delete the endpoint durably."""
        self._segments += self._agent.withdraw(self._container.endpoint)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the others."""
        self._agent.host.publish(self._segments)
        self._segments = []
        yield

    async def disconnect(self) -> None:
        """Remove the interface."""
        self._agent.disconnect(self._container.endpoint.endpoint_id)
        await checkpoint()

    async def end_participation(self) -> None:
        """Remove the sandbox if nothing needs it."""
        self._segments += self._agent.end_unused(self._container.endpoint.vni)

    async def confirmed(self) -> None:
        """Tell the others that this host has left the network, if it has."""
        self._agent.host.publish(self._segments)
