"""Answer in place of Docker's resolver in containers where its queries pass no gateway.

Docker's resolver, inside each container, asks the host's resolvers from inside the container; but
those on the host's loopback it asks outside, so no gateway sees the query. Where the host has no
others, a server inside the container answers in its place: Docker is asked first for names without
a dot, as its own names always win, and then for everything that overlayd does not know.

Owns: which containers, their servers, and the questions to Docker's resolver. Does not: know how
queries get to the server (`kernel.nft.docker_resolver`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from dnslib import RCODE, DNSRecord
from dnslib.dns import DNSError

from overlay import limits
from overlay.agent.dns import upstream
from overlay.agent.dns.query import Query
from overlay.agent.dns.resolver import Resolver
from overlay.agent.dns.server import DnsServer, bound_sockets
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.resolvers import resolv_conf
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.nft import docker_resolver
from overlay.kernel.nft.docker_resolver import DOCKERS, SERVER, DockerResolverTable
from overlay.model import Endpoint, Ip, Network, ip_text
from overlay.signals import AsyncSignal

_Identity: TypeAlias = tuple[int, int]
_Sockets: TypeAlias = tuple[socket.socket, socket.socket]
_DOCKERS_TTL_S = 600  # of Docker's own names, in all its versions
_PLACE = (ip_text(DOCKERS), upstream.PORT)


class DockerForwarder:
    """Asks Docker's resolver, from inside a container."""

    def __init__(self, kernel: KernelThread, place: tuple[str, _Identity]) -> None:
        self._kernel = kernel
        self._place = place
        self._pending = 0

    async def forward(
        self, _network: Network, _client: Ip, query: Query, *, by_tcp: bool, asked: Ip | None = None
    ) -> bytes:
        """Return the answer of Docker's resolver; SERVFAIL if there is none."""
        del asked  # it is Docker's resolver
        if self._pending >= limits.DNS_FORWARDS_PER_CLIENT_MAX:
            return query.failure(RCODE.REFUSED)
        kind = socket.SOCK_STREAM if by_tcp else socket.SOCK_DGRAM
        self._pending += 1
        try:
            connection = await self._kernel.call(_socket_inside, *self._place, kind)
            if connection is not None:
                with connection:
                    async with asyncio.timeout(limits.DNS_DOCKER_WAIT_S):
                        return await upstream.exchange(connection, _PLACE, query.raw)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._pending -= 1
        return query.failure(RCODE.SERVFAIL)


class ContainerDnsServer(DnsServer):
    """Serves one container inside its namespace, where every client is the container."""

    def __init__(
        self, network: Network, resolver: Resolver, forwarder: DockerForwarder, ip: Ip
    ) -> None:
        super().__init__(network, resolver, random.Random(os.urandom(8)), forwarder)
        self._dockers = forwarder
        self._ip = ip

    async def answer(
        self, raw: bytes, client: Ip, *, by_tcp: bool, asked: Ip | None = None
    ) -> bytes | None:
        """Return the message to send back; None to send nothing."""
        del client  # it is seen by its address on the loopback
        query = Query.parse(raw)
        if query is not None and query.may_be_forwarded and "." not in query.name.rstrip("."):
            try:
                async with asyncio.timeout(limits.DNS_DOCKER_FIRST_S):
                    found = await self._dockers.forward(
                        self._network, self._ip, query, by_tcp=by_tcp
                    )
                if _is_dockers_own(found):
                    return found
            except TimeoutError:  # Docker asks resolvers that do not answer
                pass
        return await super().answer(raw, self._ip, by_tcp=by_tcp, asked=asked)


def _is_dockers_own(answer: bytes) -> bool:
    """Return whether an answer is of Docker itself, and not of the resolvers that it asks."""
    try:
        return any(each.ttl == _DOCKERS_TTL_S for each in DNSRecord.parse(answer).rr)
    except (DNSError, ValueError, IndexError, struct.error):
        return False


@dataclass(slots=True)
class _Served:
    """One container with a server in it."""

    endpoint_id: str
    server: ContainerDnsServer
    table: DockerResolverTable


class DockerResolvers:
    """The servers in this host's containers.

    `container_changed` is emitted with the namespace of a container, which is locked, after its
    attachments or interfaces may have changed.
    """

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        resolver: Resolver,
        container_changed: AsyncSignal[[_Identity]],
        is_only_on_loopback: Callable[[], bool] = resolv_conf.is_only_on_loopback,
    ) -> None:
        self._directory = context.directory
        self._kernel = context.kernel
        self._event_log = context.event_log
        self._attachments = attachments
        self._resolver = resolver
        self._is_only_on_loopback = is_only_on_loopback
        self._served: dict[_Identity, _Served] = {}
        self._reported: dict[_Identity, str] = {}
        container_changed.connect(self.ensure)

    async def ensure(self, identity: _Identity) -> None:
        """Have the server that a container needs, or none; a refusal is recorded as an event."""
        found = self._wanted(identity)
        served = self._served.get(identity)
        if served and found and served.endpoint_id == found[0].endpoint_id:
            return
        if served is not None:
            await self._stop(identity)
        if found is None:
            return
        attachment, network, endpoint = found
        try:
            await self._start(attachment, network, endpoint)
            self._reported.pop(identity, None)
        except (OverlayError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else ""
            text = f"overlayd's names are not found in {attachment.target}: {why or error}; "
            text += "start it with --dns GATEWAY"
            if self._reported.get(identity) != text:
                self._reported[identity] = text
                self._event_log.record("dns", text, level=logging.WARNING)

    def _wanted(self, identity: _Identity) -> tuple[Attachment, Network, Endpoint] | None:
        """Return the attachment by which a container's names are answered, if it needs a server."""
        mine = self._attachments.of_target(identity)
        dockers = [each for each in mine if _is_dockers(each) and each.plugged]
        if not dockers or any(each.resolvers for each in mine) or not self._is_only_on_loopback():
            return None
        for attachment in dockers:
            network = self._directory.network_by_vni(attachment.vni)
            endpoint = self._directory.endpoint_of(attachment)
            if network is not None and endpoint is not None and has_sandbox(network):
                return attachment, network, endpoint
        return None

    async def _start(self, attachment: Attachment, network: Network, endpoint: Endpoint) -> None:
        place = attachment.netns_path, attachment.netns_identity
        sockets = await self._kernel.call(_server_sockets, *place)
        if sockets is None:  # without Docker's resolver: it is on Docker's default bridge
            return
        forwarder = DockerForwarder(self._kernel, place)
        server = ContainerDnsServer(network, self._resolver, forwarder, endpoint.ips[0])
        await server.start(SERVER, *sockets)
        try:
            table = await self._kernel.call(DockerResolverTable.open, *place)
        except BaseException:
            await _end(server)
            raise
        if table is None:
            await _end(server)
            return
        self._served[attachment.netns_identity] = _Served(attachment.endpoint_id, server, table)

    async def _stop(self, identity: _Identity) -> None:
        served = self._served.pop(identity)
        await self._kernel.call(served.table.close)
        await _end(served.server)

    async def ensure_all(self) -> None:
        """Check all containers: a start of the agent finds no server in them."""
        for identity in {each.netns_identity for each in self._attachments.values()}:
            async with self._attachments.alone_with(identity):
                await self.ensure(identity)

    async def close(self) -> None:
        """Remove all servers."""
        for identity in list(self._served):
            await self._stop(identity)


def _is_dockers(attachment: Attachment) -> bool:
    return bool(attachment.runtime_endpoint) or attachment.target.startswith("docker:")


async def _end(server: ContainerDnsServer) -> None:
    """Close a server, so that its addresses are free for the next one."""
    server.close()
    await asyncio.sleep(0)  # asyncio closes a datagram socket in the next round of its loop


# --- in the kernel thread ---------------------------------------------------------------------


def _server_sockets(netns_path: str, identity: _Identity) -> _Sockets | None:
    """Return bound sockets in a container; None if Docker's resolver is not in it."""
    fd = netns.open_same(netns_path, identity)
    if fd is None:
        return None
    with netns.closing(fd), netns.inside(fd):
        return bound_sockets(SERVER, transparent=False) if docker_resolver.is_here() else None


def _socket_inside(
    netns_path: str, identity: _Identity, kind: socket.SocketKind
) -> socket.socket | None:
    """Return a socket in a container whose queries Docker's resolver gets; None if it is gone."""
    fd = netns.open_same(netns_path, identity)
    if fd is None:
        return None
    with netns.closing(fd), netns.inside(fd):
        made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.bind((ip_text(SERVER), 0))
        except OSError:
            made.close()
            raise
        return made
