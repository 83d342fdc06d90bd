"""All that runs while this node is member of a cluster, wired together.

Owns: construction order, the dispatch of the node's events, the background tasks. Must not
know: the API, how a cluster is joined.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from overlay import limits
from overlay.agent import removals, stored
from overlay.agent.addresses import Addresses
from overlay.agent.admissions import Admissions
from overlay.agent.askers import Askers
from overlay.agent.attachments import Attachments
from overlay.agent.background import Background
from overlay.agent.clashes import Clashes
from overlay.agent.config import Config
from overlay.agent.custody import Custody
from overlay.agent.datapath import Datapath
from overlay.agent.directory import Directory
from overlay.agent.dnsservers import DnsServers
from overlay.agent.endpoints import Endpoints
from overlay.agent.fastmode import FastMode
from overlay.agent.guard import Guard
from overlay.agent.inheriting import Inheriting
from overlay.agent.journal import Journal
from overlay.agent.kernelthread import KernelThread
from overlay.agent.keys import Keys
from overlay.agent.lost import Lost
from overlay.agent.member import Member
from overlay.agent.names import Names
from overlay.agent.outside import Outside
from overlay.agent.plugging import Plugging
from overlay.agent.resizing import Resizing
from overlay.agent.returning import Returning
from overlay.agent.rivals import Rivals
from overlay.agent.statefile import StateFile
from overlay.agent.stored import ClusterFile
from overlay.agent.underlaywatch import UnderlayWatch
from overlay.core import keyduty
from overlay.core.drivers import has_sandbox
from overlay.core.events import (
    BarredBy,
    CardAccepted,
    CloneSeen,
    ConfirmWanted,
    Event,
    GrantRefused,
    GrantWanted,
    Healed,
    MemberChanged,
    NodeForgotten,
    OwnLogAhead,
    Partitioned,
    StoreChanged,
    Told,
)
from overlay.core.messages import GrantRequest, MemberState
from overlay.core.records import CLUSTER_SCOPE, Forgotten, Scope
from overlay.core.state import HOST_PORT_PREFIX
from overlay.errors import ConflictError, OverlayError
from overlay.model import Ip, NodeId, Vni, ip_text
from overlay.wire.admission import Doorkeeper

_TIDY_WAIT_S = 60.0
_LOOK_AGAIN_S = 2.0


class Running:
    """One membership, from start to close."""

    def __init__(
        self,
        config: Config,
        state: StateFile,
        kernel: KernelThread,
        journal: Journal,
        cluster: ClusterFile,
        underlay: tuple[Ip, str, int],
    ) -> None:
        address, interface, underlay_mtu = underlay
        self.config = config
        self.journal = journal
        self.attachments = Attachments(stored.load_attachments(state))
        self.member = Member(state, cluster, address, underlay_mtu, self._on_event)
        self.directory = Directory(self.member.node, self.member.node_id)
        self.admissions = Admissions(self.member, journal)
        self.custody = Custody(self.member, self.directory, self.admissions, journal)
        self.keys = self._keys(config.key_rotation_interval_s)
        self.barred_by: dict[NodeId, None] = {}
        self.rivals = Rivals()
        self.addresses = Addresses(self.member, self.directory, journal)
        self.guard = Guard(
            self.member, self.directory, kernel, journal, config.reconcile_interval_s
        )
        self.datapath = Datapath(
            self.member,
            self.directory,
            kernel,
            journal,
            self.attachments,
            config.reconcile_interval_s,
            FastMode(config.fast_path),
            self.guard,
        )
        self.plugging = Plugging(
            state, self.directory, self.datapath, kernel, journal, self.attachments
        )
        self.endpoints = self._plug_in(kernel)
        self.outside = self._reach_outside(kernel)
        self.underlay, self.resizing = self._follow_underlay(kernel, interface)
        self.directory.view.is_expired = self._is_expired
        self.directory.view.ownership = self.addresses.space.ownership
        self.clashes = Clashes(self.directory, self.addresses.space, journal)
        askers = Askers(state, self.directory, self.attachments)
        self.names = Names(self.directory, config.dns_domain)
        self.names.networks_of = askers.networks
        self._dns = self._serve_names(kernel, askers)
        self.returning = Returning(state, self.directory, self.endpoints, self.attachments, journal)
        self._lost = self._follow_up_losses(kernel)
        self._inheriting = Inheriting(self.member, self.directory, self.addresses, journal)
        self._inheriting_due = False
        self._networks_changed = asyncio.Event()
        self._networks_changed.set()
        self.member_changed: list[Callable[[], None]] = []
        self._background = Background(journal)

    def _plug_in(self, kernel: KernelThread) -> Endpoints:
        return Endpoints(
            self.member,
            self.directory,
            self.addresses,
            self.datapath,
            kernel,
            self.journal,
            self.attachments,
            self.plugging,
        )

    def _serve_names(self, kernel: KernelThread, askers: Askers) -> DnsServers:
        servers = DnsServers(self.names, kernel, self.journal)
        servers.resolvers_of = askers.resolvers
        self.datapath.opened, self.datapath.closed = servers.open, servers.close
        return servers

    def _follow_underlay(
        self, kernel: KernelThread, interface: str
    ) -> tuple[UnderlayWatch, Resizing]:
        parts = (self.member, self.directory, self.datapath, kernel, self.journal)
        watch = UnderlayWatch(*parts, interface)
        resizing = Resizing(*parts, self.attachments, interface)
        resizing.resized = self.outside.exposure.wake
        watch.found = resizing.settle
        return watch, resizing

    def _reach_outside(self, kernel: KernelThread) -> Outside:
        return Outside(
            self.config,
            self.member,
            self.directory,
            self.addresses,
            self.datapath,
            self.endpoints,
            kernel,
            self.journal,
            self.attachments,
        )

    def _follow_up_losses(self, kernel: KernelThread) -> Lost:
        lost = Lost(
            self.directory, self.endpoints, self.returning, self.attachments, kernel, self.journal
        )

        def report(vni: Vni, ports: list[str]) -> None:
            lost.report([port for port in ports if not port.startswith(HOST_PORT_PREFIX)])
            if any(port.startswith(HOST_PORT_PREFIX) for port in ports):
                self.outside.exposure.wake(vni)

        self.datapath.lost_ports = report
        self.plugging.parented.lost = lost.report
        return lost

    def _keys(self, interval_s: float) -> Keys:
        return Keys(self.member, self.directory, self.admissions, self.journal, interval_s)

    def _doorkeeper(self) -> Doorkeeper:
        return Doorkeeper(
            self.member.identity,
            self.member.anchor.cluster_id,
            lambda: self.member.card,
            self.admissions,
            os.urandom,
        )

    async def start(self) -> None:
        """Adopt what this node's sandboxes hold, then keep them true."""
        self.member.pump.door = self._doorkeeper().open
        self.member.start()
        if self.member.unreadable_count:
            self.journal.record(
                "state",
                f"{self.member.unreadable_count} records of others on disk could not be read: "
                "they give them again",
                level=logging.WARNING,
            )
        await self._adopt()
        await self.plugging.start()
        await self.outside.start()
        await self.datapath.destroy_leftovers(self.outside.exposure.exposable.wished())
        begin = self._background.start
        begin(self.guard.run, "guard")
        begin(self.datapath.run, "reconcile")
        begin(self.datapath.watch, "watch")
        begin(self.plugging.parented.run, "parented")
        begin(self.custody.run, "custody")
        begin(self.keys.run, "keys")
        begin(self._tidy_up, "tidy up")
        begin(self._follow_removals, "removals")
        begin(self.underlay.run, "underlay")
        begin(self.clashes.run, "clashes")
        for work, name in self.outside.tasks():
            begin(work, name)
        for follower in self.returning.followers:
            begin(follower.run, f"{follower.kind} events")

    async def _adopt(self) -> None:
        """Open the sandboxes of all attachments, and of networks exposed by hand, if known."""
        attached = {Vni(a.vni) for a in self.attachments.values()}
        for vni in sorted(attached.union(self.outside.exposure.exposable.wished())):
            network = self.directory.network_by_vni(vni)
            if network is None or not has_sandbox(network):
                continue
            if self.datapath.runtime(vni) is None:
                unfinished = [
                    a.port for a in self.attachments.values() if a.vni == vni and not a.plugged
                ]
                await self.datapath.open(network, unfinished)

    async def _follow_removals(self) -> None:
        """Detach what is on networks that were removed, until cancelled."""
        while True:
            await self._networks_changed.wait()
            self._networks_changed.clear()
            if self.member.node.caught_up:
                await self.endpoints.detach_from_removed()
            else:  # what is unknown here may only be on its way
                await asyncio.sleep(_LOOK_AGAIN_S)
                self._networks_changed.set()

    async def _tidy_up(self) -> None:
        """Take back what a crash, or an older copy of the state, left written: endpoints that
        nothing here is attached to, and taking part in networks without an endpoint."""
        while not await self.member.wait_may_write(_TIDY_WAIT_S):
            pass
        await self._adopt()  # a disk that lost a network's record has it back by now
        for network in self.directory.networks():
            self.member.publish(self.endpoints.withdraw_strays(network))
        for vni in self.directory.forwarded_by(self.member.node_id):
            self.member.publish(await self.endpoints.give_up_unused(vni))

    async def close(self) -> None:
        """Stop; the kernel goes on forwarding."""
        await self._background.close()
        await self._lost.close()
        self._dns.close_all()
        self.member.close()
        await self.datapath.close()
        self.guard.close()
        self.outside.close()

    def _is_expired(self, node_id: NodeId) -> bool:
        """Say whether a node has been dead for longer than the configured grace."""
        found = self.member.node.membership.member(node_id)
        if found is None or found.state is not MemberState.DEAD:
            return False
        return self.member.pump.now() - found.since > self.config.dead_grace_s

    # --- events of the node -------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case StoreChanged(scope=scope, keys=keys):
                self.keys.note(keys)  # no other scope has such records
                if any(key != keyduty.RECORD for key in keys):  # a rotation changes each member's
                    self._store_changed(scope)
            case ConfirmWanted(scope=scope):
                self._store_changed(scope)
            case OwnLogAhead(scope=scope, version=version):
                self.journal.record(
                    "amnesia",
                    f"the peers held more of our own records (scope {scope}, up to {version}): "
                    "this disk was rolled back; they are restored",
                    level=logging.WARNING,
                )
            case GrantWanted(sender=sender, request=request):
                self._answer(sender, request)
            case GrantRefused(refusal=refusal):
                self.addresses.refused(refusal)
            case CardAccepted():
                self.datapath.wake()
            case NodeForgotten():
                self.admissions.changed()
                self.keys.wake()
            case Told():
                self.custody.take(event)
            case BarredBy(node_id=node_id):
                self._barred(node_id)
            case MemberChanged(node_id=node_id, before=before, after=after):
                self._member_changed(self.directory.node_name(node_id), before, after)
            case Partitioned(seen=seen, total=total):
                self.journal.record(
                    "partitioned", f"I see {seen} of {total}", level=logging.WARNING
                )
            case Healed():
                self.journal.record("healed", "the members are in reach again")
            case CloneSeen(node_id=node_id, address=address):
                self._rival_seen(node_id, address)
            case _:
                pass

    def has_rival(self) -> bool:
        """Say whether another host was lately seen under this node's identity."""
        present = self.rivals.present(self.member.pump.now())
        return any(node_id == self.member.node_id for node_id, _ in present)

    def _rival_seen(self, node_id: NodeId, address: Ip) -> None:
        if self.rivals.note(node_id, address, self.member.pump.now()):
            name = self.directory.node_name(node_id)
            self.journal.record(
                "clone",
                f"another host at {ip_text(address)} uses the identity of {name}: a copied disk? "
                "Give one of them a new identity: overlayd reset, then overlayd join",
                level=logging.ERROR,
                peer=name,
            )

    def _barred(self, node_id: NodeId) -> None:
        if node_id not in self.barred_by:
            self.barred_by[node_id] = None
            name = self.directory.node_name(node_id)
            self.journal.record(
                "barred",
                f"{name} says that this host was forgotten: the cluster does not hear it any "
                "more. To come back as a new node: overlayd reset, then overlayd join",
                level=logging.ERROR,
                peer=name,
            )

    def _answer(self, sender: NodeId, request: GrantRequest) -> None:
        """Grant or refuse; where the disk refuses the asker tries again, here or elsewhere."""
        try:
            self.addresses.answer(sender, request)
        except OverlayError as error:
            self.journal.record(
                "grant", str(error), level=logging.ERROR, peer=self.directory.node_name(sender)
            )

    async def give_back(self) -> None:
        """Before leaving: give all address space to others, and drop what defines nothing."""
        for network in self.directory.networks():
            grants = self.addresses.hand_back(network)
            if grants:
                segments = self.member.commit(Scope(network.vni), grants)
                await self.member.publish_confirmed(segments, limits.ATTACH_CONFIRM_TIMEOUT_S)

    def forget(self, name: str, *, powered_off: bool, bar: bool = False) -> NodeId:
        """Declare a node gone for ever, its identity barred.

        Raises ConflictError for one that is alive, unless it is to be barred all the same: that
        takes the authority, for no member may shut out another that lives.
        """
        node_id = self.directory.node(name)
        if node_id == self.member.node_id:
            raise ConflictError("a node cannot forget itself", hint="Use: sudo overlayd leave")
        state = self.directory.node_state(node_id)
        if bar:
            self.admissions.require_authority()
        elif state in (MemberState.ALIVE, MemberState.SUSPECT):
            raise ConflictError(
                f"{name} is {state.name.lower()}",
                why="its containers may be running",
                hint=f"On {name}: sudo overlayd leave; to shut it out although it runs: "
                f"sudo overlayd forget --bar {name}",
            )
        members = self.member.node.membership
        total = 1 + len(members.members())
        if 2 * (1 + len(members.live())) < total and not powered_off and not bar:
            raise ConflictError(
                f"only {1 + len(members.live())} of {total} members are in reach",
                why="the others may be running on the far side of a partition",
                hint="If the host is really off: overlayd forget --powered-off " + name,
            )
        authority = self.member.authority
        record = Forgotten(node_id) if authority is None else authority.forget(node_id)
        self.member.publish(self.member.commit(CLUSTER_SCOPE, [record]))
        self.journal.record("forget", f"{name} is forgotten", peer=name)
        self.datapath.wake()
        return node_id

    def _member_changed(self, name: str, before: MemberState | None, after: MemberState) -> None:
        self.keys.wake()
        self.names.changed(None)
        told = after.name.lower() if before is not None else "joined"
        self.journal.record("member", f"{name} is {told}", peer=name)
        self.underlay.soon()
        if after is MemberState.LEFT:
            self.datapath.wake()
        for listener in self.member_changed:
            listener()

    def _store_changed(self, scope: Scope) -> None:
        self.addresses.changed()
        self.clashes.soon()
        self._inherit_soon()
        self.outside.publishing.changed(scope or None)
        self.names.changed(scope or None)
        if scope == CLUSTER_SCOPE:
            self.admissions.changed()
            removals.tidy(self.member, self.directory)
            self._networks_changed.set()
            self.outside.exposure.networks_changed()
            self.datapath.wake()
        elif self.datapath.runtime(Vni(scope)) is None:
            # Nothing to program for who only holds the records: that is done already.
            versions = list(self.member.node.store.versions(scope))
            self.member.node.programmed(versions, self.member.pump.now())
        else:
            self.datapath.wake(scope)

    def _inherit_soon(self) -> None:
        """Look at forgotten nodes' space outside the event's own call, once for many events."""
        if self._inheriting_due:
            return
        self._inheriting_due = True

        def work() -> None:
            self._inheriting_due = False
            self._inheriting.work()

        asyncio.get_running_loop().call_soon(work)
