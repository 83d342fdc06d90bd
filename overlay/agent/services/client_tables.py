"""Let this host's containers reach the virtual addresses of their networks.

Each container on a network with services has a table in its own namespace (`kernel.services.
client_table`). It is there without an agent; a start of the agent adopts it.

The host itself has one as well (`host_client`), for the networks that it is on.

Owns: which containers have a table, what it should hold, and what it is known to hold.
Does not: know how services are derived from records.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import replace

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.services.client import Client, Reachable, losses_of
from overlay.agent.services.connect_choice import ConnectChoice, LedContainer
from overlay.agent.services.host_client import HostClient, Identity, Place
from overlay.agent.state.attachments import Attachments
from overlay.core.services.values import VirtualPort
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.nft.table import Table
from overlay.kernel.nft.tables import NftTables
from overlay.kernel.services import lost_flows, table_writer
from overlay.kernel.services.lost_flows import Losses
from overlay.kernel.services.table_plan import TablePlan, TablePlanner
from overlay.kernel.services.table_writer import WrittenTable
from overlay.model import NodeId, Vni
from overlay.signals import AsyncSignal, Signal

_log = logging.getLogger(__name__)
_LEFT_HINT = "Connections work, a little slower; the agent retries automatically"


class ClientTables(Controller):
    """The tables in this host's containers.

    Signal `changed`: what they hold may have changed, and so the hosts of the backends.
    `container_changed` is emitted with the namespace of a container after its attachments or
    interfaces may have changed.
    """

    name = "services of containers"
    problem = "containers do not reach virtual addresses"
    hint = (
        "Load the modules (modprobe nft_chain_nat nft_hash nft_reject_inet nft_ct); the agent "
        "retries automatically"
    )
    recovered = "containers reach virtual addresses again"
    event_kind = "services"
    settle_s = limits.SERVICE_SETTLE_S

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        host: HostClient,
        container_changed: AsyncSignal[[Identity]],
        exposure_changed: Signal[[]],
        at_connect: ConnectChoice,
    ) -> None:
        super().__init__(context.event_log)
        self._at_connect = at_connect
        self.changed: Signal[[]] = Signal()
        self._gossip = context.gossip
        self._kernel = context.kernel
        self._directory = context.directory
        self._attachments = attachments
        self._planners = {
            of_gate: TablePlanner(context.gossip.node_id, of_gate=of_gate)
            for of_gate in (False, True)
        }
        self._clients: dict[Identity, Client] = {}
        self._ports: dict[Vni, tuple[VirtualPort, ...]] = {}  # by network, as of the last pass
        self._stale: set[Vni] = set()  # networks whose ports the present pass has not read yet
        # By whether the table is in the gate, and the networks.
        self._reachable: dict[tuple[bool, tuple[Vni, ...]], Reachable] = {}
        # Containers without a table, and where none is left.
        self._bare: dict[Identity, Place] = {}
        self._is_behind = True  # the records may have changed since the ports were read
        self._is_unfinished = False  # a container may lack what has changed before this pass
        # By container: the path, and what lost a backend, whose flows are still there.
        self._moving: dict[Identity, tuple[str, Losses]] = {}
        self._is_ready = False
        self._lock = asyncio.Lock()
        self._host = host
        container_changed.connect(self.ensure)
        exposure_changed.connect(self.trigger)

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Wait until this node's records are as new as they were: others may miss services."""
        await self._gossip.until_may_write()
        self._host.identity = await self._kernel.call(netns.own_identity)
        async with self._at_connect.running():
            self._is_ready = True
            yield

    async def ensure(self, identity: Identity) -> None:
        """Have the table that a container needs, or none; a failure is retried.

        An attach does not wait until a container that reaches no service is seen to have no table:
        an earlier one that may be left there is removed by the next pass.
        """
        try:
            if not self._is_ready:
                return
            if identity not in self._clients and self._wanted(identity).plan.is_empty:
                if identity not in self._bare:
                    self.trigger()
            else:
                await self._ensure(identity, verify=self._is_due(identity))
                await self._end_flows(identity)
        except (OverlayError, OSError):
            self._is_unfinished = True
            self.trigger()  # it fails there as well, and is reported

    async def reconcile(self) -> None:
        """Write what has changed, in every container; one that fails holds up no other."""
        try:
            await self._reconcile(verify=self._is_due if self.fault is not None else _never)
        finally:
            self.changed.emit()

    async def verify_all(self) -> None:
        """Read the table of every container, and repair it."""
        with self.outcome():
            await self._reconcile(verify=_always)

    def trigger(self) -> None:
        """Have a pass soon; one that is under way leads connections as it now should."""
        self._is_behind = True
        super().trigger()

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and the containers that an error keeps from being led at connect(2)."""
        yield from super().faults()
        left = self._at_connect.left
        if left:
            first = min(left)
            where = self._called(first) + (
                f" (and in {len(left) - 1} more)" if len(left) > 1 else ""
            )
            yield Fault(
                f"each packet to a virtual address is translated in {where}: {left[first]}",
                _LEFT_HINT,
            )

    async def _reconcile(self, *, verify: Callable[[Identity], bool]) -> None:
        failures: list[OverlayError | OSError] = []
        attached = {each.netns_identity for each in self._attachments.values()}
        clients = attached | self._clients.keys()
        if self._host.identity is not None:
            clients.add(self._host.identity)
        self._bare = {each: at for each, at in self._bare.items() if each in clients}
        has_changed = self._follow_records() or self._is_unfinished
        self._is_unfinished = False
        due = clients
        if verify is _never and not has_changed:  # then `ensure` has followed all changes
            due = clients - (attached & (self._bare.keys() | self._clients.keys()))
        unclosed: list[NftTables] = []
        await self._lead(due)
        for identity in due:
            with _noting(failures):
                await self._ensure(identity, verify=verify(identity), unclosed=unclosed)
            if self._is_behind and self._follow_records():
                self._is_unfinished = True
                await self._lead(clients)
            if len(unclosed) >= limits.SERVICE_TABLES_OPEN_MAX:
                await self._kernel.call(table_writer.close, unclosed)
        if unclosed:
            await self._kernel.call(table_writer.close, unclosed)
        for identity in list(self._moving):  # once new connections go elsewhere in all of them
            with _noting(failures):
                await self._end_flows(identity)
        in_use = {id(client.reachable) for client in self._clients.values()}
        self._reachable = {at: it for at, it in self._reachable.items() if id(it) in in_use}
        for planner in self._planners.values():
            planner.forget_others([each for ports in self._ports.values() for each in ports])
        if failures:
            self._is_unfinished = True  # also where `verify_all` meanwhile clears the fault
            raise failures[0]

    def _follow_records(self) -> bool:
        """Have the virtual ports read again; return whether any has changed."""
        before, self._stale, self._is_behind = dict(self._ports), set(self._ports), False
        return any(self._ports_on(vni) is not ports for vni, ports in before.items())

    def backend_hosts(self) -> set[NodeId]:
        """Return the hosts of the backends that the clients here have, as of the last pass."""
        in_use = {id(client.reachable): client.reachable for client in self._clients.values()}
        return {
            backend.node
            for reachable in in_use.values()
            for port in reachable.ports
            for backend in port.backends
        }

    async def withdraw(self) -> None:
        """Remove this host's own table: the node leaves."""
        self._host.is_leaving = True
        if self._host.identity is not None:
            await self._ensure(self._host.identity, verify=True)
            await self._end_flows(self._host.identity)

    async def differences(self) -> list[str]:
        """Describe the tables that are not as they should be, or could not be written."""
        found = [] if self.fault is None else [self.fault.text]
        for identity, client in list(self._clients.items()):
            place, plan = client.place, client.written.plan
            table = f"{self._called(identity, place)}: nft table inet {self._table(place).name}"
            try:
                arguments = (place.path, place.identity, self._table(place), plan)
                if not await self._kernel.call(table_writer.is_intact, *arguments):
                    found.append(f"{table} is altered or gone")
            except (OverlayError, OSError) as error:
                found.append(f"{table} cannot be read: {error}")
        return found

    # --- one container ------------------------------------------------------------------

    def _wanted(self, identity: Identity) -> Reachable:
        """Return what a container, or this host, may reach."""
        networks = {
            Vni(each.vni)
            for each in self._attachments.of_target(identity)
            if each.plugged and (not each.hands_off or each.runtime_endpoint)
        }
        if identity == self._host.identity:
            networks |= self._host.vnis
        place, vnis = self._place_of(identity), tuple(sorted(networks))
        of_gate = place is not None and place.of_gate
        chosen, by_network = (of_gate, vnis), tuple(map(self._ports_on, vnis))
        found = self._reachable.get(chosen)
        if found is None or any(
            now is not before for now, before in zip(by_network, found.by_network, strict=True)
        ):
            plan = self._planners[of_gate].plan([port for ports in by_network for port in ports])
            found = self._reachable[chosen] = Reachable(by_network, plan)
        return found

    def _ports_on(self, vni: Vni) -> tuple[VirtualPort, ...]:
        """Return a network's virtual ports as of the last pass, which follows each change.

        What has not changed is the same object.
        """
        if vni in self._ports and vni not in self._stale:
            return self._ports[vni]
        network = self._directory.network_by_vni(vni)
        now = () if network is None else self._directory.view.services.virtual_ports(network)
        self._stale.discard(vni)
        if self._ports.get(vni) != now:
            known = {each: each for each in self._ports.get(vni, ())}
            self._ports[vni] = tuple(known.get(each, each) for each in now)
        return self._ports[vni]

    def _is_due(self, identity: Identity) -> bool:
        client = self._clients.get(identity)
        return client is None or client.rests_until_s <= asyncio.get_running_loop().time()

    async def _ensure(
        self, identity: Identity, *, verify: bool, unclosed: list[NftTables] | None = None
    ) -> None:
        """Have the table of a container; unless to verify it, only where something has changed."""
        async with self._lock:
            place = self._place_of(identity)
            if place is None:
                self._is_unfinished = True  # until that is told (`HostRules.place_known`)
                return
            before, wanted = self._clients.get(identity), self._wanted(identity)
            has_moved = before is not None and before.place != place
            clears = place.of_gate and (verify or self._host.may_have_own_table)
            is_bare = wanted.plan.is_empty and self._bare.get(identity) == place
            if before is None and is_bare and not clears:
                return
            is_same = before is not None and before.reachable is wanted
            if is_same and not (verify or has_moved or clears):
                return
            await self._at_connect.follow([self._led(identity)])
            written = before.written if before is not None and not has_moved else None
            after, is_altered = await self._write(place, wanted.plan, written, unclosed)
            if after is None and place.of_gate and not wanted.plan.is_empty:
                raise OverlayError("the gate is gone", why="it is made again automatically")
            if is_altered:
                text = (
                    f"nftables table {self._table(place).name} in {self._called(identity, place)}"
                )
                text += " was altered or gone: rewritten"
                self._event_log.record("repaired", text, level=logging.WARNING)
            await self._note_written(identity, place, wanted, before, after)
            if clears:
                await self._clear_own(identity, wanted, unclosed)

    async def _note_written(
        self,
        identity: Identity,
        place: Place,
        wanted: Reachable,
        before: Client | None,
        after: WrittenTable | None,
    ) -> None:
        """Note what a container's table holds now (None: there is none), and what that ends."""
        path, is_same = self._path_of(identity), before is not None and before.reachable is wanted
        if after is None:
            await self._at_connect.follow([LedContainer(path, identity, ())])
            self._clients.pop(identity, None)
            self._bare[identity] = place
        else:
            rests_until_s = asyncio.get_running_loop().time()
            if before is not None and is_same and after is not before.written:
                # Others had changed rules, so it was read.
                rests_until_s += wanted.plan.count * limits.SERVICE_ELEMENT_REST_S
            self._clients[identity] = Client(path, place, wanted, after, rests_until_s)
            self._bare.pop(identity, None)
        if identity == self._host.identity and not place.of_gate:
            self._host.may_have_own_table = True
        if before is not None and before.place != place:
            self._note_losses(identity, path, lost_flows.after_move(wanted.ports))
        elif not is_same:
            self._note_losses(
                identity, path, losses_of(before.reachable if before else None, wanted)
            )

    async def _clear_own(
        self, identity: Identity, wanted: Reachable, unclosed: list[NftTables] | None
    ) -> None:
        """Have no table in the host's own namespace: what it has sent takes the gate from now on.

        TCP connections that are answered stay, while other rules keep the namespace translating.
        """
        own, nothing = Place(self._path_of(identity), identity), self._planners[False].plan([])
        had_own = self._host.may_have_own_table
        await self._write(own, nothing, None, unclosed)
        if had_own:
            sent = lost_flows.all_of(wanted.ports)
            await self._kernel.call(lost_flows.end, own.path, own.identity, sent)
        self._host.may_have_own_table = False

    async def _lead(self, clients: Collection[Identity]) -> None:
        """Have containers' connections led as the records say: one table may take 0.3 s."""
        identities = list(self._at_connect.known.union(clients))
        for at in range(0, len(identities), limits.SERVICE_LED_AT_ONCE):
            async with self._lock:
                await self._at_connect.follow(
                    map(self._led, identities[at : at + limits.SERVICE_LED_AT_ONCE])
                )

    def _led(self, identity: Identity) -> LedContainer:
        """Return a container, and the ports from which its connections are led."""
        return LedContainer(self._path_of(identity), identity, self._wanted(identity).ports)

    async def _write(
        self,
        place: Place,
        plan: TablePlan,
        written: WrittenTable | None,
        unclosed: list[NftTables] | None,
    ) -> tuple[WrittenTable | None, bool]:
        arguments = (place.path, place.identity, self._table(place), plan, written, unclosed)
        return await self._kernel.call(table_writer.ensure, *arguments)

    async def _end_flows(self, identity: Identity) -> None:
        """End flows of a container to backends that are gone; if that fails, the next pass does."""
        if identity not in self._moving:
            return
        path, moving = self._moving.pop(identity)
        try:
            client = self._clients.get(identity)
            place = client.place if client else self._bare.get(identity, Place(path, identity))
            sockets = (path, identity) if place.of_gate else None
            await self._kernel.call(lost_flows.end, place.path, place.identity, moving, sockets)
        except (OverlayError, OSError):
            _, newer = self._moving.pop(identity, (path, Losses()))
            self._note_losses(identity, path, moving | newer)
            raise
        async with self._lock:
            await self._move_unanswered(identity, moving.ports)

    def _note_losses(self, identity: Identity, path: str, lost: Losses) -> None:
        _, known = self._moving.get(identity, (path, Losses()))
        if known or lost:
            self._moving[identity] = path, known | lost

    async def _move_unanswered(self, identity: Identity, losing: Collection[VirtualPort]) -> None:
        """Lead connections that a backend has not answered, and will not, to others."""
        client = self._clients.get(identity)
        if client is None:
            return
        after = client.reachable.ports
        try:
            moves = await self._at_connect.unanswered(client.path, identity, losing, after)
            if client.place.of_gate:  # no table sees what is sent to a backend itself
                moves = [(connection, None) for connection, _ in moves]
            if moves:
                place = client.path, identity, self._table(client.place), client.written
                written = await self._kernel.call(table_writer.move, *place, moves)
                self._clients[identity] = replace(client, written=written)
        except (OverlayError, OSError) as error:
            _log.warning("%s: connections wait for a backend: %s", self._called(identity), error)

    def _path_of(self, identity: Identity) -> str:
        client = self._clients.get(identity)
        if client is not None:
            return client.path
        mine = self._attachments.of_target(identity)
        return mine[0].netns_path if mine else netns.OWN_NAMESPACE

    def _place_of(self, identity: Identity) -> Place | None:
        """Return where a container's table is to be; None if that is not known yet."""
        own = Place(self._path_of(identity), identity)
        if identity != self._host.identity:
            return own
        before = self._clients.get(identity)
        return self._host.place(own) or (before.place if before is not None else None)

    def _table(self, place: Place) -> Table:
        return self._planners[place.of_gate].table

    def _called(self, identity: Identity, place: Place | None = None) -> str:
        if place is not None and place.of_gate:
            return "this host's gate"
        mine = self._attachments.of_target(identity)
        return mine[0].target if mine else "this host"


def _always(_identity: Identity) -> bool:
    return True


def _never(_identity: Identity) -> bool:
    return False


@contextlib.contextmanager
def _noting(failures: list[OverlayError | OSError]) -> Iterator[None]:
    """Note an error of the block, so that one container holds up no other."""
    try:
        yield
    except (OverlayError, OSError) as error:
        failures.append(error)
