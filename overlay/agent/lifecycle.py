"""The agent: what the API's verbs mean on this host.

Owns: whether this node is member of a cluster, and the way in and out. The verbs on
networks, endpoints and containers are in `verbs`; what they show, in `views`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import replace

from overlay import limits
from overlay.agent.components import Running
from overlay.agent.containers.namespaces import Containers
from overlay.agent.gossip import join_request
from overlay.agent.gossip.join_client import Application
from overlay.agent.gossip.join_request import JoinWish, Seed
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.state import documents
from overlay.agent.state.database import StateFile
from overlay.agent.state.documents import CONTAINER_KIND, ClusterFile
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, OverlayError, UsageError
from overlay.kernel.host import underlay
from overlay.kernel.sandbox import kernel_support
from overlay.model import Ip, ip_text, valid_name
from overlay.wire.identity.authority import Anchor, Authority
from overlay.wire.identity.keyring import SECRET_SIZE
from overlay.wire.identity.token import Token

_SEED_RETRY_MAX_S = 60.0


class Agent:
    """One agent process: idle until `join`, then with a `Running` membership."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = StateFile(config.state_dir)
        self.journal = Journal(config.state_dir)
        self.kernel = KernelThread()
        self.running: Running | None = None
        self.containers = Containers(
            self.state, self.kernel, config.dns_domain, lambda: self.running, self.member
        )
        self.started = time.monotonic()
        self._joining = asyncio.Lock()
        self._seeding: asyncio.Task[None] | None = None
        self.stopping = asyncio.Event()

    # --- start and end ------------------------------------------------------------------

    async def start(self) -> None:
        """Return to the cluster this host belongs to, if any."""
        if self.state.restored_previous:
            self.journal.record(
                "state",
                "the state file was damaged; its previous copy is used, and newer records come "
                "back from the peers",
                level=logging.WARNING,
            )
        cluster = documents.load_cluster(self.state)
        if cluster is not None:
            await self._run(cluster)
            self._seed_forever()
        self.state.keep_previous()

    async def close(self) -> None:
        """Stop the agent; forwarding goes on."""
        if self._seeding is not None:
            self._seeding.cancel()
        if self.running is not None:
            await self.running.close()
        self.kernel.close()
        self.state.close()

    def member(self) -> Running:
        """Return the running membership; raises ConflictError if there is none."""
        if self.running is None:
            raise ConflictError(
                "this host is not member of a cluster",
                hint="Make one: sudo overlayd join   Or join one: sudo overlayd join PEER "
                "--token-file FILE",
            )
        return self.running

    async def _run(self, cluster: ClusterFile, peer: Ip | None = None) -> Running:
        await self.kernel.call(kernel_support.require_capable)
        chosen = await self._underlay(cluster, peer)
        place = (chosen.address, chosen.interface, chosen.mtu)
        running = Running(self.config, self.state, self.kernel, self.journal, cluster, place)
        running.attach_service.changed.connect(self.containers.point_resolver)
        try:
            await running.start()
        except BaseException:
            await running.close()
            raise
        self.running = running
        return running

    async def _underlay(self, cluster: ClusterFile, peer: Ip | None) -> underlay.Underlay:
        """Choose the VTEP address: as asked for, else the one used before, else by route."""
        if cluster.underlay is None and cluster.address:
            with contextlib.suppress(OverlayError):
                return await self.kernel.call(underlay.choose, cluster.address, peer)
        return await self.kernel.call(underlay.choose, cluster.underlay, peer)

    # --- join ---------------------------------------------------------------------------

    async def join(self, wish: JoinWish) -> tuple[Running, bool, Seed | None]:
        """Become a member; return whether a cluster was made, and through whom we came in."""
        async with self._joining:
            if wish.name is not None and not valid_name(wish.name):
                raise UsageError(f"{wish.name!r} cannot be a node's name", field="name")
            token = None if wish.token is None else Token.parse(wish.token)
            if self.running is not None:
                self._require_same_cluster(token)
                if wish.peers:
                    await self._greet_again(wish)
                return self.running, False, None
            if wish.peers or token is not None:
                return await self._enter(wish, token)
            return await self._create(wish), True, None

    def _require_same_cluster(self, token: Token | None) -> None:
        assert self.running is not None
        own = self.running.member.cluster
        if token is not None and token.cluster_id.hex() != own.cluster_id:
            raise ConflictError(
                "this host is member of another cluster already",
                why=f"it belongs to {own.cluster_id[:8]}, the token to "
                f"{token.cluster_id.hex()[:8]}",
                hint="Leave first: sudo overlayd leave && sudo overlayd reset",
            )

    async def _create(self, wish: JoinWish) -> Running:
        authority = Authority.generate(os.urandom)
        cluster = ClusterFile(
            cluster_id=Anchor(authority.anchor).cluster_id.hex(),
            anchor=authority.anchor.hex(),
            gossip_port=wish.gossip_port or limits.GOSSIP_PORT_DEFAULT,
            vxlan_port=wish.vxlan_port or limits.VXLAN_PORT_DEFAULT,
            node_name=wish.name or join_request.default_name(),
            underlay=wish.underlay,
            address="",
            seeds=(),
        )
        with self.state.transaction():
            key = authority.make_key(0, os.urandom(SECRET_SIZE), time.time())
            documents.put_standing(self.state, key, authority=authority)
        try:
            running = await self._run(cluster)
        except BaseException:
            self._forget_try()
            raise
        self._remember(running, cluster)
        running.admissions.declare()
        self.journal.record("join", f"made cluster {cluster.cluster_id[:8]}")
        return running

    async def _enter(
        self, wish: JoinWish, token: Token | None
    ) -> tuple[Running, bool, Seed | None]:
        if token is None:
            raise UsageError(
                "joining needs the cluster's token",
                why="there is none on this host",
                hint="On the first host run 'sudo overlayd token show', store the line in a file "
                "here, then: sudo overlayd join PEER --token-file FILE",
            )
        if not wish.peers:
            raise UsageError("a token without a peer", hint="Name a member: overlayd join PEER")
        _require_ports(wish, token)
        seeds = await join_request.resolve(wish.peers, token.gossip_port)
        name = wish.name or join_request.default_name()
        await self.kernel.call(kernel_support.require_capable)
        chosen = await self.kernel.call(underlay.choose, wish.underlay, seeds[0].address)
        seeds = join_request.elsewhere(seeds, chosen.address)
        identity = documents.load_identity(self.state)
        entry = await Application(identity, token, name, chosen.address, seeds).run()
        cluster = ClusterFile(
            cluster_id=token.cluster_id.hex(),
            anchor=token.anchor.hex(),
            gossip_port=token.gossip_port,
            vxlan_port=token.vxlan_port,
            node_name=name,
            underlay=wish.underlay,
            address=ip_text(chosen.address),
            seeds=wish.peers,
        )
        with self.state.transaction():
            welcome = entry.welcome
            documents.put_standing(self.state, welcome.key, certificate=welcome.certificate)
        try:
            running = await self._run(cluster, seeds[0].address)
            try:
                await self._knock(running, list(dict.fromkeys([*seeds, *entry.members])))
            except BaseException:
                self.running = None
                await running.guard.remove()
                await running.close()
                raise
        except BaseException:
            self._forget_try()
            raise
        via = seeds[0]
        self._remember(running, cluster)
        self.journal.record("join", f"joined cluster {cluster.cluster_id[:8]}")
        return running, False, via

    def _forget_try(self) -> None:
        """Leave no trace of a membership that did not come about, but for the identity: by it a
        token that let this host in already does so again without another use."""
        identity = documents.load_identity(self.state)
        self.state.wipe(keep=CONTAINER_KIND)
        with self.state.transaction():
            documents.put_identity(self.state, identity)

    async def _knock(self, running: Running, reachable: list[Seed]) -> None:
        """Greet members until one knows us and has told us all it knows."""
        loop = asyncio.get_running_loop()
        admitted: asyncio.Future[None] = loop.create_future()

        def on_admitted(_node_id: object) -> None:
            if not admitted.done():
                admitted.set_result(None)

        running.member.pump.joined_through = on_admitted
        started = loop.time()
        deadline = started + limits.JOIN_TIMEOUT_S
        while not admitted.done():
            if loop.time() >= deadline:
                raise join_request.no_answer(reachable, loop.time() - started)
            for seed in reachable:
                running.member.pump.greet(seed.address, seed.port)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(admitted), join_request.GREET_INTERVAL_S)
        await running.member.wait_may_write(max(1.0, deadline - loop.time()))

    async def _greet_again(self, wish: JoinWish) -> None:
        """Knock once more, as a repeated join does, so that two halves find each other."""
        running = self.member()
        for seed in await join_request.resolve(wish.peers, running.member.cluster.gossip_port):
            if seed.address != running.member.card.address:
                running.member.pump.greet(seed.address, seed.port)

    def _remember(self, running: Running, cluster: ClusterFile) -> None:
        kept = replace(cluster, address=ip_text(running.member.card.address))
        with self.state.transaction():
            documents.put_cluster(self.state, kept)
        running.member.cluster = kept
        self.state.keep_previous()
        self._seed_forever()

    def _seed_forever(self) -> None:
        if self._seeding is None or self._seeding.done():
            self._seeding = asyncio.get_running_loop().create_task(self._seed(), name="seed")

    async def _seed(self) -> None:
        """While alone, knock at the seeds again, ever more slowly but for ever."""
        pause_s = 1.0
        while True:
            await asyncio.sleep(pause_s)
            running = self.running
            if running is None or not running.member.cluster.seeds:
                return
            if running.member.alive_peers():
                pause_s = _SEED_RETRY_MAX_S
                continue
            with contextlib.suppress(OverlayError):
                await self._greet_again(JoinWish(peers=tuple(running.member.cluster.seeds)))
            pause_s = min(2 * pause_s, _SEED_RETRY_MAX_S)

    # --- leave and reset ----------------------------------------------------------------

    async def leave(self, *, force: bool = False) -> int:
        """Withdraw everything of this node, tell the others, and be no member any more.

        Returns how many endpoints were withdrawn. Raises ConflictError on a host whose disk was
        copied, or is the copy: it would say goodbye for the other one too; and, unless forced,
        where the cluster's authority would be lost with this node.
        """
        running = self.member()
        if not force:
            running.admissions.require_another_holder()
        if running.doubts.has_rival():
            raise ConflictError(
                "another host uses this one's identity, and would leave with it",
                why="a copied disk ('overlayd status' shows where the other one is)",
                hint="On the copy, which may be this one: sudo overlayd reset",
            )
        count = 0
        for attachment in list(running.attachments.values()):
            count += len(await running.detaching.remove(attachment))
        await running.outside.withdraw()
        await running.addresses.hand_back()
        await running.member.say_goodbye()
        await running.guard.remove()
        self.running = None
        await running.close()
        if self._seeding is not None:
            self._seeding.cancel()
            self._seeding = None
        self.state.wipe(keep=CONTAINER_KIND)
        self.state.keep_previous()
        self.journal.record("leave", "left the cluster")
        return count

    def members_alive(self) -> int:
        """Return how many members are alive, this one included."""
        running = self.member()
        return 1 + sum(
            member.state is MemberState.ALIVE
            for member in running.member.node.membership.members()
            if member.node_id != running.member.node_id
        )


def _require_ports(wish: JoinWish, token: Token) -> None:
    for asked, fixed, option in (
        (wish.vxlan_port, token.vxlan_port, "--vxlan-port"),
        (wish.gossip_port, token.gossip_port, "--gossip-port"),
    ):
        if asked is not None and asked != fixed:
            raise ConflictError(
                f"this cluster's port is {fixed}, not {asked}",
                why=f"{option} is fixed by the first host",
                hint=f"Leave {option} out",
            )
