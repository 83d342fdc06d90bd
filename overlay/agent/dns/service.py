"""Start and stop the DNS servers in this node's sandboxes.

Owns: on which addresses each serves: the gateways, and the resolvers that containers ask.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from dataclasses import dataclass

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dns.clients import DnsClients
from overlay.agent.dns.forwarder import Forwarder
from overlay.agent.dns.resolver import Resolver
from overlay.agent.dns.server import DnsServer, bound_sockets
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.kernel import netns
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Network, Vni, ip_text
from overlay.signals import AsyncSignal


@dataclass(slots=True)
class _Fault:
    """Why there is no server on an address, and when to try again."""

    reason: str
    wait_s: float
    due_s: float  # of the loop's clock


class DnsService:
    """The DNS servers, one per network."""

    def __init__(
        self,
        resolver: Resolver,
        clients: DnsClients,
        reconciler: Reconciler,
        kernel: KernelThread,
        event_log: EventLog,
        resolvers_changed: AsyncSignal[[Vni]],
        endpoint_attached: AsyncSignal[[Vni]],
    ) -> None:
        self._resolver = resolver
        self._forwarder = Forwarder(clients)
        self._container_resolvers = reconciler.resolvers
        self._mark_dirty = reconciler.mark_dirty
        self._kernel = kernel
        self._event_log = event_log
        self._servers: dict[Vni, DnsServer] = {}
        self._faults: dict[tuple[Vni, Ip], _Fault] = {}
        self._opening: set[Vni] = set()
        self._opened: dict[Vni, tuple[Network, Sandbox]] = {}
        reconciler.sandbox_ready.connect(self.open)
        reconciler.sandbox_closing.connect(self.close)
        resolvers_changed.connect(self._change_resolvers)
        endpoint_attached.connect(self._reopen)

    async def open(self, network: Network, sandbox: Sandbox) -> None:
        """Serve a network on all its addresses, and no longer on former ones.

        If an address cannot be served, a later call tries again, after a wait that doubles each
        time.
        """
        if network.vni in self._opening:
            return
        self._opened[network.vni] = network, sandbox
        server = self._servers.get(network.vni)
        if server is None:
            rng = random.Random(os.urandom(8))
            server = DnsServer(network, self._resolver, rng, self._forwarder)
            self._servers[network.vni] = server
        wanted = [subnet.gateway for subnet in network.subnets]
        if sandbox.interception is not None:
            wanted += self._container_resolvers.of(network)
        self._opening.add(network.vni)
        try:
            await self._serve_on(wanted, network, sandbox, server)
        finally:
            self._opening.discard(network.vni)

    async def _change_resolvers(self, vni: Vni) -> None:
        """Serve a network in place of other resolvers, which its policies must let through."""
        self._mark_dirty(vni)
        await self._reopen(vni)

    async def _reopen(self, vni: Vni) -> None:
        """Serve an open network on its present addresses."""
        if vni in self._opened:
            await self.open(*self._opened[vni])

    async def _serve_on(
        self, wanted: list[Ip], network: Network, sandbox: Sandbox, server: DnsServer
    ) -> None:
        now_s = asyncio.get_running_loop().time()
        for ip in set(server.addresses).difference(wanted):
            server.stop(ip)
        for key in [key for key in self._faults if key[0] == network.vni and key[1] not in wanted]:
            del self._faults[key]
        for ip in wanted:
            fault = self._faults.get((network.vni, ip))
            if ip not in server.addresses and (fault is None or fault.due_s <= now_s):
                await self._serve(network, sandbox, ip, server)

    async def _serve(self, network: Network, sandbox: Sandbox, ip: Ip, server: DnsServer) -> None:
        transparent = all(ip != subnet.gateway for subnet in network.subnets)
        try:
            udp, tcp = await self._kernel.call(_inside, sandbox, ip, transparent=transparent)
        except OSError as error:
            if self._servers.get(network.vni) is server:
                self._set_fault(network, ip, error.strerror or str(error))
            return
        if self._servers.get(network.vni) is not server:  # closed meanwhile
            udp.close()
            tcp.close()
            return
        await server.start(ip, udp, tcp)
        if self._faults.pop((network.vni, ip), None) is not None:
            text = f"now serving names on {ip_text(ip)}"
            self._event_log.record("dns", text, network=network.name)

    def _set_fault(self, network: Network, ip: Ip, reason: str) -> None:
        """Record why an address cannot be served, and log it unless it was logged before."""
        before = self._faults.get((network.vni, ip))
        wait_s = limits.DNS_RETRY_FIRST_S if before is None else 2 * before.wait_s
        wait_s = min(wait_s, limits.DNS_RETRY_MAX_S)
        due_s = asyncio.get_running_loop().time() + wait_s
        self._faults[network.vni, ip] = _Fault(reason, wait_s, due_s)
        if before is None or before.reason != reason:
            text = f"no names on {ip_text(ip)}: {reason}"
            self._event_log.record("dns", text, level=logging.WARNING, network=network.name)

    def faults(self) -> list[tuple[Vni, Ip, str]]:
        """Return the networks and addresses without a server, and why each has none."""
        return [(vni, ip, fault.reason) for (vni, ip), fault in self._faults.items()]

    def close(self, vni: Vni) -> None:
        """Stop serving a network."""
        self._opened.pop(vni, None)
        server = self._servers.pop(vni, None)
        if server is not None:
            server.close()
        for key in [key for key in self._faults if key[0] == vni]:
            del self._faults[key]

    def close_all(self) -> None:
        """Stop all servers."""
        for vni in list(self._servers):
            self.close(vni)


def _inside(sandbox: Sandbox, ip: Ip, *, transparent: bool) -> tuple[socket.socket, socket.socket]:
    """Bind the sockets inside a sandbox, in the kernel thread; raises OSError if it is closed."""
    with netns.inside(sandbox.netns_fd):
        return bound_sockets(ip, transparent=transparent)
