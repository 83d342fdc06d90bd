"""The agent's life cycle: joining a cluster, returning to it after a restart, and leaving it.

Owns: whether this node is a cluster member, and the one `Components` while it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from overlay import __version__, limits
from overlay.agent.components import Components
from overlay.agent.containers.namespaces import ContainerService
from overlay.agent.containers.resolver_files import ResolverFiles
from overlay.agent.defects import Defects
from overlay.agent.gossip import join_request
from overlay.agent.gossip.join_client import JoinAttempt, JoinResult, run_attempts
from overlay.agent.gossip.join_request import JoinSeed, JoinSpec
from overlay.agent.membership_removal import MembershipRemoval
from overlay.agent.process.config import Config
from overlay.agent.process.controller import Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.process.metrics_listener import MetricsListener
from overlay.agent.process.tasks import BackgroundTasks
from overlay.agent.state import documents, membership_documents
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.membership_documents import StoredCluster
from overlay.agent.state.place_watch import PlaceWatch
from overlay.agent.status_events import StatusEvents
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.kernel import former_identity
from overlay.kernel.host import underlay
from overlay.kernel.sandbox import kernel_support
from overlay.model import Ip, ip_text, valid_name
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.keyring import SECRET_SIZE
from overlay.wire.identity.token import Token

_STOPPED = "stopped"  # the text of the last event of an agent that was not killed


class FaultSource(Protocol):
    """A part of the agent that reports its faults."""

    def faults(self) -> Iterable[Fault]:
        """Return the faults that there are now."""


class AgentLifecycle:
    """One agent process: idle until `join`, then with the components of a membership."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = StateDatabase(config.state_dir, config.run_dir)
        self.event_log = EventLog(config.state_dir)
        self.kernel = KernelThread()
        self.components: Components | None = None
        self.containers = ContainerService(
            self.state,
            self.kernel,
            config.dns_domain,
            lambda: self.components,
            self.require_components,
        )
        self.resolver_files = ResolverFiles(self.containers, self.event_log)
        self.metrics_listener = MetricsListener(self.event_log, config.metrics_listen)
        self._status_events = StatusEvents(self.event_log, lambda: self._settled)
        self._settled: Components | None = None  # a membership whose join is complete
        self.membership_removal = MembershipRemoval(self.state, self.event_log)
        self._place_watch = PlaceWatch(self.state, self.event_log)
        self.defects = Defects(self.event_log)
        self.fault_sources: list[FaultSource] = [
            self.defects,
            self._place_watch,
            self.membership_removal,
            self.resolver_files,
            self.metrics_listener,
        ]
        """Sources of faults for `overlayd status`, beside the components of a membership."""
        self._tasks = BackgroundTasks(self.event_log)
        self.started = time.monotonic()
        self.started_at_s = round(time.time(), 3)
        self._is_started = False
        self._joining = asyncio.Lock()
        self.stopping = asyncio.Event()

    # --- start and end ------------------------------------------------------------------

    async def start(self) -> None:
        """Return to the cluster that this host belongs to, if any."""
        last = self.event_log.last("agent")
        if last is not None and last["text"] != _STOPPED:
            text = "the previous agent ended without stopping: it was killed, or it crashed"
            self.event_log.record("agent", text, level=logging.WARNING)
        self.event_log.record("agent", f"started: overlayd {__version__}")
        self._is_started = True
        if self.state.restored_backup:
            text = "the state file was damaged: its previous copy is used"
            self.event_log.record("state", text, level=logging.WARNING)
        for text in await self.containers.restore():
            self.event_log.record("container", text)
        cluster = membership_documents.CLUSTER.find(self.state)
        if cluster is not None:
            self._settled = await self._run(cluster)
        self._tasks.start(self.resolver_files.run, self.resolver_files.name)
        self._tasks.start(self._status_events.run, self._status_events.name)
        self._tasks.start(self.membership_removal.run, self.membership_removal.name)
        self._tasks.start(self._place_watch.run, self._place_watch.name)
        self._keep_backup()

    async def close(self) -> None:
        """Stop the agent; the kernel keeps forwarding."""
        if self._is_started:  # one that was refused is not the agent of this state directory
            self.event_log.record("agent", _STOPPED)
        await self.metrics_listener.close()
        await self._tasks.close()
        if self.components is not None:
            await self.components.close()
        self.kernel.close()
        self.state.close()

    def require_components(self) -> Components:
        """Return the running membership; raises ConflictError if there is none."""
        if self.components is None:
            raise ConflictError(
                "this host is not in a cluster",
                hint="Create one: sudo overlayd join   Or join one: sudo overlayd join PEER "
                "--token-file FILE",
            )
        return self.components

    async def _run(self, cluster: StoredCluster, peer: Ip | None = None) -> Components:
        await self.kernel.call(kernel_support.require_kernel_support)
        chosen = await self._underlay(cluster, peer)
        place = (chosen.address, chosen.interface, chosen.mtu)
        components = Components(
            self.config, self.state, self.kernel, self.event_log, cluster, place
        )
        components.attach_service.changed.connect(self.containers.point_resolver)
        components.endpoints.restart.attached_again.connect(self.containers.point_resolver)
        try:
            await components.start()
        except BaseException:
            await components.close()
            raise
        self.components = components
        return components

    async def _underlay(self, cluster: StoredCluster, peer: Ip | None) -> underlay.UnderlayAddress:
        """Choose the VTEP address: the requested one, else the previous one, else by route."""
        if cluster.underlay is None and cluster.address:
            with contextlib.suppress(OverlayError):
                return await self.kernel.call(underlay.choose_underlay, cluster.address, peer)
        try:
            return await self.kernel.call(underlay.choose_underlay, cluster.underlay, peer)
        except UsageError as error:
            if not cluster.address:  # it was named just now
                raise
            raise underlay.former_address_error(error) from error

    # --- join ---------------------------------------------------------------------------

    async def join(self, spec: JoinSpec) -> tuple[Components, bool, JoinSeed | None]:
        """Become a member; return whether a cluster was created, and the seed joined through.

        Raises UsageError for an invalid request, ConflictError if this host is in another cluster.
        """
        async with self._joining:
            if spec.name is not None and not valid_name(spec.name):
                raise UsageError(f"{spec.name!r} is not a valid node name", field="name")
            token = None if spec.token is None else Token.parse(spec.token)
            if self.components is not None:
                self._require_same_cluster(token)
                if spec.underlay is not None:
                    await self.components.forwarding.underlay.move_to(spec.underlay)
                if spec.peers:
                    await self.components.forwarding.seed_contact.require_member(spec.peers)
                return self.components, False, None
            self.membership_removal.finish()
            if spec.peers or token is not None:
                return await self._enter(spec, token)
            return await self._create(spec), True, None

    def _require_same_cluster(self, token: Token | None) -> None:
        assert self.components is not None
        own = self.components.gossip.cluster
        if token is not None and token.cluster_id.hex() != own.cluster_id:
            raise ConflictError(
                "this host is already in another cluster",
                why=f"its cluster is {own.cluster_id[:8]}, the token is for "
                f"{token.cluster_id.hex()[:8]}",
                hint="Leave first: sudo overlayd leave && sudo overlayd reset",
            )

    async def _create(self, spec: JoinSpec) -> Components:
        gossip_port, vxlan_port = join_request.ports_of_new_cluster(spec)
        abandoned = await asyncio.to_thread(former_identity.abandoned_sandboxes)
        if abandoned:
            raise join_request.lost_state_error(abandoned)
        authority = Authority.generate(os.urandom)
        cluster = StoredCluster(
            cluster_id=TrustAnchor(authority.anchor).cluster_id.hex(),
            anchor=authority.anchor.hex(),
            gossip_port=gossip_port,
            vxlan_port=vxlan_port,
            node_name=spec.name or join_request.default_name(),
            underlay=spec.underlay,
            address="",
            seeds=(),
        )
        key = authority.make_key(0, os.urandom(SECRET_SIZE), time.time())
        self.state.commit(membership_documents.rows(key, authority=authority))
        try:
            components = await self._run(cluster)
        except BaseException:
            self._undo_failed_join()
            raise
        self._remember(components, cluster)
        components.administration.holders.declare()
        self.event_log.record("join", f"created cluster {cluster.cluster_id[:8]}")
        return components

    async def _enter(
        self, spec: JoinSpec, token: Token | None
    ) -> tuple[Components, bool, JoinSeed | None]:
        if token is None:
            raise UsageError(
                "joining requires a join token of the cluster",
                why="this host has none",
                hint="On a host that holds the authority ('overlayd authority ls' on any member) "
                "run 'sudo overlayd token show', store the line in a file here, then: sudo "
                "overlayd join PEER --token-file FILE",
            )
        if not spec.peers:
            raise UsageError(
                "a join token was given, but no peer to join",
                hint="Name a member: overlayd join PEER --token-file FILE",
            )
        _require_ports(spec, token)
        seeds = await join_request.resolve(spec.peers, token.gossip_port)
        name = spec.name or join_request.default_name()
        await self.kernel.call(kernel_support.require_kernel_support)
        entry = await self._request_admission(spec, token, name, seeds)
        cluster = StoredCluster(
            cluster_id=token.cluster_id.hex(),
            anchor=token.anchor.hex(),
            gossip_port=token.gossip_port,
            vxlan_port=token.vxlan_port,
            node_name=name,
            underlay=spec.underlay,
            address=ip_text(entry.address),
            seeds=spec.peers,
        )
        welcome = entry.welcome
        self.state.commit(membership_documents.rows(welcome.key, certificate=welcome.certificate))
        try:
            components = await self._run(cluster, entry.via.address)
            try:
                await self._contact_members(components, seeds, entry)
            except BaseException:
                self.components = None
                await components.forwarding.native_path.remove()
                await components.forwarding.underlay_filter.remove()
                await components.close()
                raise
        except BaseException:
            self._undo_failed_join()
            raise
        self._remember(components, cluster)
        self.event_log.record("join", f"joined cluster {cluster.cluster_id[:8]}")
        return components, False, entry.via

    async def _request_admission(
        self, spec: JoinSpec, token: Token, name: str, seeds: list[JoinSeed]
    ) -> JoinResult:
        """Request admission from all peers at a time, each from the address that leads to it.

        Raises the first error of the choice of an address if there is none for any peer.
        """
        reached: dict[Ip, list[JoinSeed]] = {}
        failures: list[OverlayError] = []
        for seed in seeds:
            try:
                chosen = await self.kernel.call(
                    underlay.choose_underlay, spec.underlay, seed.address
                )
            except OverlayError as error:
                failures.append(error)
                continue
            if chosen.address == seed.address:
                failures.append(join_request.own_address_error(seed.address))
            else:
                reached.setdefault(chosen.address, []).append(seed)
        if not reached:
            raise failures[0]
        identity = membership_documents.ensure_identity(self.state)
        with contextlib.ExitStack() as opened:
            attempts = []
            for address, group in reached.items():
                attempt = JoinAttempt(identity, token, name, address, group)
                opened.callback(attempt.close)
                attempts.append(attempt)
            return await run_attempts(attempts, seeds)

    def _undo_failed_join(self) -> None:
        """Delete the state of a failed join except for the identity.

        With the same identity, a repeated join does not count as another use of the token.
        """
        identity = membership_documents.ensure_identity(self.state)
        self.state.wipe(keep=documents.CONTAINERS.kind)
        membership_documents.IDENTITY.put(self.state, identity)

    async def _contact_members(
        self, components: Components, seeds: list[JoinSeed], entry: JoinResult
    ) -> None:
        """Contact members until one has opened a session, and the live ones have sent all records.

        Raises TimedOutError if none answers, ConflictError if that is due to this host's clock.
        """
        reachable = list(dict.fromkeys([*seeds, *entry.members]))
        loop = asyncio.get_running_loop()
        gossip = components.gossip
        started = loop.time()
        deadline = started + limits.JOIN_TIMEOUT_S
        has_session = False
        while not has_session:
            if loop.time() >= deadline:
                if abs(entry.clock_ahead_s) > limits.CERTIFICATE_EARLY_S:
                    raise join_request.clock_error(entry.clock_ahead_s)
                raise join_request.no_answer_error(reachable, loop.time() - started)
            for seed in reachable:
                gossip.transport.send_join_hello(seed.address, seed.port)
            has_session = await gossip.wait_session(join_request.HELLO_RETRY_INTERVAL_S)
        await gossip.wait_may_write(max(1.0, deadline - loop.time()))
        await gossip.wait_caught_up(limits.JOIN_SYNC_TIMEOUT_S)

    def _remember(self, components: Components, cluster: StoredCluster) -> None:
        kept = replace(cluster, address=ip_text(components.gossip.card.address))
        membership_documents.CLUSTER.put(self.state, kept)
        components.gossip.cluster = kept
        self._keep_backup()
        self._settled = components
        self._status_events.trigger()  # it compares later statuses with that of now

    def _keep_backup(self) -> None:
        """Copy the state file, if the disk has room; a member tries again, and reports it."""
        with contextlib.suppress(OverlayError):
            self.state.keep_backup()

    # --- leave and reset ----------------------------------------------------------------

    async def leave(self, *, force: bool = False) -> int:
        """Withdraw all of this node's records, announce the departure and end the membership.

        Returns the number of endpoints withdrawn. Raises ConflictError on a host whose disk was
        copied, or is the copy, because the other host would leave as well; and, unless forced, if
        the cluster's authority would be lost with this node. Raises OverlayError if this host has
        left, and its disk keeps the membership for now.
        """
        components = self.require_components()
        if not force:
            components.administration.holders.require_another()
        if components.administration.identity_conflicts.has_duplicate():
            raise ConflictError(
                "another host uses this host's identity, and would leave as well",
                why="one disk is a copy of the other ('overlayd status' shows the other host)",
                hint="On the copy, which may be this host: sudo overlayd reset",
            )
        count = 0
        for attachment in list(components.attachments.values()):
            count += len(await components.endpoints.detacher.remove(attachment))
        await components.exposure.withdraw()
        await components.routers.controller.withdraw()
        await components.plugs.withdraw()
        await components.service_data_plane.clients.withdraw()
        components.ipam.reserves.begin_to_leave()
        await components.ipam.grants.hand_back()
        await components.gossip.say_goodbye()
        await components.forwarding.evpn.remove()
        await components.forwarding.encryption.remove()
        await components.forwarding.native_path.remove()
        await components.forwarding.underlay_filter.remove()
        self.components = self._settled = None
        await components.close()
        self.membership_removal.remove()
        return count

    def members_alive(self) -> int:
        """Return how many members are alive, this one included."""
        components = self.require_components()
        return 1 + sum(
            member.state is MemberState.ALIVE
            for member in components.gossip.node.membership.members()
            if member.node_id != components.gossip.node_id
        )


def _require_ports(spec: JoinSpec, token: Token) -> None:
    for asked, fixed, option in (
        (spec.vxlan_port, token.vxlan_port, "--vxlan-port"),
        (spec.gossip_port, token.gossip_port, "--gossip-port"),
    ):
        if asked is not None and asked != fixed:
            raise ConflictError(
                f"this cluster uses port {fixed}, not {asked}",
                why=f"the first host of the cluster has fixed {option}",
                hint=f"Leave {option} out",
            )
