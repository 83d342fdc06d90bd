"""Start and stop the DNS servers in this node's sandboxes."""

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


@dataclass(slots=True)
class _Fault:
    """Why there is no server on an address, and when to try again."""

    reason: str
    wait_s: float
    due_s: float  # of the loop's clock


class DnsService:
    """The DNS servers, one per network and gateway address."""

    def __init__(
        self,
        resolver: Resolver,
        clients: DnsClients,
        reconciler: Reconciler,
        kernel: KernelThread,
        event_log: EventLog,
    ) -> None:
        self._resolver = resolver
        self._forwarder = Forwarder(clients)
        self._kernel = kernel
        self._event_log = event_log
        self._servers: dict[Vni, dict[Ip, DnsServer]] = {}
        self._faults: dict[tuple[Vni, Ip], _Fault] = {}
        self._opening: set[Vni] = set()
        reconciler.sandbox_ready.connect(self.open)
        reconciler.sandbox_closing.connect(self.close)

    async def open(self, network: Network, sandbox: Sandbox) -> None:
        """Start the servers of a network that are not running yet.

        If a server cannot start, a later call tries again, after a wait that doubles each time.
        """
        if network.vni in self._opening:
            return
        servers = self._servers.setdefault(network.vni, {})
        now_s = asyncio.get_running_loop().time()
        self._opening.add(network.vni)
        try:
            for subnet in network.subnets:
                fault = self._faults.get((network.vni, subnet.gateway))
                if subnet.gateway not in servers and (fault is None or fault.due_s <= now_s):
                    await self._serve(network, sandbox, subnet.gateway, servers)
        finally:
            self._opening.discard(network.vni)

    async def _serve(
        self, network: Network, sandbox: Sandbox, ip: Ip, servers: dict[Ip, DnsServer]
    ) -> None:
        try:
            udp, tcp = await self._kernel.call(_inside, sandbox, ip)
        except OSError as error:
            if self._servers.get(network.vni) is servers:
                self._set_fault(network, ip, error.strerror or str(error))
            return
        if self._servers.get(network.vni) is not servers:  # closed meanwhile
            udp.close()
            tcp.close()
            return
        server = DnsServer(network, self._resolver, random.Random(os.urandom(8)), self._forwarder)
        servers[ip] = server
        await server.start(udp, tcp)
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
        for server in self._servers.pop(vni, {}).values():
            server.close()
        for key in [key for key in self._faults if key[0] == vni]:
            del self._faults[key]

    def close_all(self) -> None:
        """Stop all servers."""
        for vni in list(self._servers):
            self.close(vni)


def _inside(sandbox: Sandbox, ip: Ip) -> tuple[socket.socket, socket.socket]:
    """Bind the sockets inside a sandbox, in the kernel thread; raises OSError if it is closed."""
    with netns.inside(sandbox.netns_fd):
        return bound_sockets(ip)
