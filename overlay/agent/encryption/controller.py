"""Keep this host's WireGuard tunnels to the other members as the records describe them.

The device exists while this host has a sandbox of an encrypted network. Each member with a
published key is a peer that may send from its one inner address. Without the device, or without a
peer, frames go nowhere: a fence in the routing table and the filter of the VXLAN port see to that.

Owns: when the key is published, when the device is made, repaired and removed, which members are
peers, and the health lines. Does not: know how a device is made (`kernel.wireguard`), or which rows
lead into it (the planner).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from overlay import limits
from overlay.agent.dataplane.watch import watch_monitor
from overlay.agent.encryption.own_key import OwnKey
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller, Fault
from overlay.core.dataplane.network_drivers import is_encrypted
from overlay.core.encryption.device import (
    DeviceReading,
    TunnelPeer,
    TunnelState,
    tunnel_mtu,
    wireguard_port,
)
from overlay.core.encryption.inner_address import inner_address, inner_prefix
from overlay.core.encryption.key_record import WireguardKey
from overlay.core.encryption.silent_peers import SilentPeers
from overlay.core.protocol.messages import MemberState
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.sandbox.monitor import UnderlayMonitor
from overlay.kernel.wireguard import backend, link, tunnel
from overlay.kernel.wireguard.backend import Support
from overlay.model import Ip, Network, NodeId, Vni

_UNKNOWN = Support(None, "not checked yet", "Try again in a moment")


class EncryptionController(Controller):
    """The tunnels of this node's encrypted networks; satisfies `EncryptedTunnels`."""

    name = "encryption"
    problem = "encrypted networks do not reach other hosts (nothing leaves in clear)"
    settle_s = 0.02
    retry_first_s = 0.1  # right after a kill the kernel has the device for a moment
    recovered = "encrypted networks reach other hosts again"
    event_kind = "encryption"

    def __init__(self, context: NodeContext, interval_s: float) -> None:
        super().__init__(context.event_log)
        self.interval_s = interval_s
        self.support = _UNKNOWN
        self.key = OwnKey(context.gossip)
        self.contested: tuple[str, ...] = ()
        """The members that publish one another's key: none of them is a peer."""
        self._gossip = context.gossip
        self._directory = context.directory
        self._kernel = context.kernel
        self._prefix = inner_prefix(bytes.fromhex(context.gossip.cluster.cluster_id))
        self._in_use: set[Vni] = set()
        self._is_fenced = False
        self._is_stale = True
        self._has_left = False
        self._applied: TunnelState | None = None
        self._lock = asyncio.Lock()
        self._silent = SilentPeers()

    # --- lookups ------------------------------------------------------------------------

    @property
    def address(self) -> Ip:
        """Return this node's inner address."""
        return inner_address(self._prefix, self._gossip.node_id)

    @property
    def is_fenced(self) -> bool:
        """Return whether frames to inner addresses go nowhere without the device."""
        return self._is_fenced

    @property
    def is_in_use(self) -> bool:
        """Return whether this host has a sandbox of an encrypted network."""
        return bool(self._in_use)

    @property
    def port(self) -> int:
        """Return the UDP port of this node's WireGuard."""
        cluster = self._gossip.cluster
        return wireguard_port(cluster.gossip_port, cluster.vxlan_port)

    def address_of(self, node_id: NodeId) -> Ip:
        """Return a node's inner address."""
        return inner_address(self._prefix, node_id)

    def key_of(self, node_id: NodeId) -> WireguardKey | None:
        """Return the key that a node has published."""
        return self._directory.view.wireguard_key(node_id)

    def incapable(self) -> list[str]:
        """Return the members that have published no key, each with the version that it runs."""
        view = self._directory.view
        found = []
        for node_id in view.members():
            is_counted = node_id == self._gossip.node_id or view.vtep_of(node_id) is not None
            if is_counted and view.wireguard_key(node_id) is None:
                card = self._directory.card(node_id)
                version = "" if card is None else f" (overlayd {card.software})"
                found.append(f"{self._directory.node_name(node_id)}{version}")
        return found

    async def require_capable_members(self) -> None:
        """Raise ConflictError with the names of the members that can carry no encrypted network.

        Waits a moment for the keys of members that have just joined.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.WIREGUARD_KEYS_WAIT_S):
                while self.incapable():  # noqa: ASYNC110 - keys come with any member's records
                    await asyncio.sleep(limits.WIREGUARD_KEYS_POLL_S)
        missing = self.incapable()
        if missing:
            raise ConflictError(
                "not every member can carry an encrypted network",
                why=f"no WireGuard key is known of {', '.join(missing)}",
                hint="On each: install this version of overlayd, and WireGuard ('modprobe "
                "wireguard', or 'apt install wireguard-go'); 'overlayd encryption status' there "
                "says what is missing. A member that is gone: overlayd forget NAME",
            )

    async def require_support(self, network: Network) -> None:
        """Raise ConflictError if a network needs WireGuard, and this host has none."""
        if is_encrypted(network) and self.support.backend is None:
            self.support = await self._kernel.call(backend.find_support)
        if is_encrypted(network) and self.support.backend is None:
            raise ConflictError(
                f"network {network.name} is encrypted, and this host has no WireGuard",
                why=self.support.why,
                hint=self.support.hint,
            )

    async def reading(self) -> DeviceReading | None:
        """Return the device with its counters; None where there is none, or nothing answers."""
        with contextlib.suppress(OverlayError, OSError):
            return await self._kernel.call(tunnel.read)
        return None

    async def differences(self) -> list[str]:
        """Return how fence and device differ from what they should be; changes nothing."""
        wanted = self._wanted()
        if not self._in_use or wanted is None:
            return []
        async with self._lock:
            return await self._kernel.call(tunnel.differences, wanted, self._applied)

    # --- for the reconciler ---------------------------------------------------------------

    async def enter(self, vni: Vni) -> None:
        """Have the tunnels while this network's sandbox exists; an error becomes `fault`."""
        self._in_use.add(vni)
        await self.attempt()

    async def leave(self, vni: Vni) -> None:
        """Remove the tunnels when the last sandbox of an encrypted network is gone."""
        if vni in self._in_use:
            self._in_use.discard(vni)
            if not self._in_use:
                await self.attempt()

    async def follow_members(self) -> None:
        """Let exactly the present members be peers; an error becomes `fault`."""
        if self._in_use and self._wanted() != self._applied:
            await self.attempt()

    async def remove(self) -> None:
        """Remove device and fence: this node has left; its key is published no more."""
        self._in_use.clear()
        self._has_left = True
        await self.attempt()

    # --- the controller -------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Watch for changes of links, addresses and routes."""
        monitor = await self._kernel.call(UnderlayMonitor)
        with watch_monitor(monitor, self.trigger, self.settle_s):
            yield

    def resync(self) -> None:
        """Have the next pass read the whole device."""
        self._is_stale = True
        super().resync()

    def next_interval_s(self) -> float | None:
        """Return the time to the next check: short until the key is published."""
        is_settled = self.support.backend is None or self.key.is_published
        return self.interval_s if is_settled else limits.WIREGUARD_KEYS_POLL_S

    async def reconcile(self) -> None:
        """Publish the key, and make device, peers and routes what they should be."""
        async with self._lock:
            if self._is_stale or self.support.backend is None:
                self.support = await self._kernel.call(backend.find_support)
            self._publish()
            if self._in_use:
                await self._establish()
            elif self._applied is not None or self._is_fenced:
                await self._kernel.call(tunnel.remove, self._prefix)
                self._applied, self._is_fenced = None, False
            if self._is_stale and self._in_use:
                found = await self.reading()
                if found is not None:
                    self._silent.update(found)
            self._is_stale = False

    def _publish(self) -> None:
        if self._has_left or not self._gossip.may_write:
            return
        if self.support.backend is not None:
            self.key.publish()
        elif not self._in_use:
            self.key.withdraw()

    async def _establish(self) -> None:
        """Make the fence first, whatever else fails: nothing leaves in clear then."""
        missing = await self._kernel.call(link.ensure_fence, self._prefix)
        was_fenced, self._is_fenced = self._is_fenced, True
        if missing and was_fenced:
            self._report(["its unreachable route was gone"])
        wanted = self._wanted()
        if wanted is None or self.support.backend is None:
            raise OverlayError(
                "this host has no WireGuard" if wanted is not None else "there is no key yet",
                why=self.support.why,
                hint=self.support.hint,
            )
        before = self._applied
        wrong = await self._kernel.call(
            tunnel.establish, wanted, before, self.support.backend, read=self._is_stale
        )
        self._applied = wanted
        if before is not None and before == wanted and wrong:
            self._report(wrong)

    def _report(self, wrong: list[str]) -> None:
        self._event_log.record(
            "repaired", f"encryption: {'; '.join(wrong)}: repaired", level=logging.WARNING
        )

    # --- what should be -------------------------------------------------------------------

    def _wanted(self) -> TunnelState | None:
        """Return the desired device; None before there is a key."""
        private, own = self.key.private, self._gossip.card
        if private is None:
            return None
        mtu = tunnel_mtu(own.underlay_mtu, own.address)
        return TunnelState(
            private, self.port, self._prefix, self.address, mtu, frozenset(self._peers())
        )

    def _peers(self) -> Iterator[TunnelPeer]:
        view, own = self._directory.view, self._gossip.card
        keys: dict[NodeId, bytes] = {}
        for node_id in view.members():
            published = view.wireguard_key(node_id)
            is_counted = node_id == own.node_id or view.vtep_of(node_id) is not None
            if published is not None and is_counted:
                keys[node_id] = published.public_key
        count = Counter(keys.values())
        self.contested = tuple(
            self._directory.node_name(node_id) for node_id, key in keys.items() if count[key] > 1
        )
        vxlan_port = self._gossip.cluster.vxlan_port
        for node_id, key in keys.items():
            card = self._directory.card(node_id)
            if node_id == own.node_id or card is None or count[key] > 1:
                continue
            if len(card.address) == len(own.address):
                port = wireguard_port(card.gossip_port, vxlan_port)
                yield TunnelPeer(key, self.address_of(node_id), card.address, port)

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and what keeps hosts out of the cluster's encrypted networks."""
        yield from super().faults()
        if self.contested:
            yield Fault(
                f"{' and '.join(self.contested)} publish the same WireGuard key: encrypted "
                "networks do not reach them",
                "A host never shows the key of another unless one disk is a copy of the other, or "
                "the host is hostile: overlayd forget NAME",
                "error",
            )
        yield from self._silence()
        if self.support.backend is None and self.support is not _UNKNOWN and not self._in_use:
            names = [each.name for each in self._directory.networks() if is_encrypted(each)]
            if names:
                yield Fault(
                    f"this host can take part in no encrypted network ({', '.join(names[:3])}): "
                    f"{self.support.why}",
                    self.support.hint,
                )

    def _silence(self) -> Iterator[Fault]:
        """Yield the live members that do not answer through the tunnel."""
        silent = self._silent.keys if self._in_use else frozenset()
        for node_id in self._directory.view.members() if silent else ():
            key = self.key_of(node_id)
            is_alive = self._directory.node_state(node_id) is MemberState.ALIVE
            card = self._directory.card(node_id)
            if key is None or key.public_key not in silent or not is_alive or card is None:
                continue
            port = wireguard_port(card.gossip_port, self._gossip.cluster.vxlan_port)
            yield Fault(
                f"{card.name} does not answer through the tunnel of encrypted networks: gossip "
                f"works, WireGuard (UDP {port}) gets no answer",
                f"Allow UDP {port} between the two hosts, in both directions; 'overlayd "
                "encryption status' on both shows the bytes sent and received",
                "error",
            )
