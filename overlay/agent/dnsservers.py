"""The DNS servers of this node's sandboxes: started and stopped as sandboxes come and go."""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Callable, Sequence

from overlay.agent.dnsserver import DnsServer, bound_sockets, host_resolvers
from overlay.agent.journal import Journal
from overlay.agent.kernelthread import KernelThread
from overlay.agent.names import Names
from overlay.kernel import netns
from overlay.kernel.sandbox import Sandbox
from overlay.model import Ip, Network, Vni, ip_text


class DnsServers:
    """One server per network and gateway address."""

    def __init__(self, names: Names, kernel: KernelThread, journal: Journal) -> None:
        self._names = names
        self._kernel = kernel
        self._journal = journal
        self._servers: dict[Vni, list[DnsServer]] = {}
        # Whoever knows the containers: what was asked for one of them, by its address.
        self.resolvers_of: Callable[[Network, Ip], Sequence[str]] = lambda _network, _ip: ()

    async def open(self, network: Network, sandbox: Sandbox) -> None:
        """Serve a network's names in its sandbox; harmless if that is done already."""
        if network.vni in self._servers:
            return
        servers = self._servers[network.vni] = []
        for subnet in network.subnets:
            try:
                udp, tcp = await self._kernel.call(_inside, sandbox.netns_fd, subnet.gateway)
            except OSError as error:
                self._journal.record(
                    "dns",
                    f"no names on {ip_text(subnet.gateway)}: {error.strerror}",
                    level=logging.WARNING,
                    network=network.name,
                )
                continue
            server = DnsServer(network, self._names, random.Random(os.urandom(8)), self._resolvers)
            await server.start(udp, tcp)
            servers.append(server)

    def close(self, vni: Vni) -> None:
        """Stop serving a network."""
        for server in self._servers.pop(vni, []):
            server.close()

    def close_all(self) -> None:
        """Stop serving."""
        for vni in list(self._servers):
            self.close(vni)

    def _resolvers(self, network: Network, asker: Ip) -> Sequence[str]:
        """Return whom to ask what is no name of ours: the container's own choice, or the host's."""
        return self.resolvers_of(network, asker) or host_resolvers()


def _inside(netns_fd: int, ip: Ip) -> tuple[socket.socket, socket.socket]:
    """Bind in the sandbox, in the kernel thread."""
    with netns.inside(netns_fd):
        return bound_sockets(ip)
