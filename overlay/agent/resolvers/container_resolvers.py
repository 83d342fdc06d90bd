"""The resolvers that containers ask by themselves: those of the host, and those they were given.

In their place the DNS server of a network answers the containers that reach them through the
gateway. Does not: know how queries get there (`kernel.sandbox.interception`).
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TypeAlias

from overlay import limits
from overlay.agent.resolvers.resolv_conf import RESOLV_CONF, STUB_RESOLV_CONF, engine_resolvers
from overlay.agent.state.attachments import Attachments
from overlay.model import Ip, Network, parse_ip

_Version: TypeAlias = tuple[int, int, int]


class ContainerResolvers:
    """The resolvers' addresses by network."""

    def __init__(
        self,
        attachments: Attachments,
        host_file: Path = RESOLV_CONF,
        stub_file: Path = STUB_RESOLV_CONF,
    ) -> None:
        self._attachments = attachments
        self._files = (host_file, stub_file)
        self._versions: list[_Version | None] = []  # of the files, when they were read last
        self._of_host: tuple[Ip, ...] = ()

    def of_host(self) -> tuple[Ip, ...]:
        """Return the resolvers that an engine gives to a container that was given none.

        Every network asks every half a second, so the files are read after a change only.
        """
        versions = [_version_of(path) for path in self._files]
        if versions != self._versions:
            self._versions, self._of_host = versions, engine_resolvers(*self._files)
        return self._of_host

    def of(self, network: Network) -> list[Ip]:
        """Return the resolvers of a network's containers on this host.

        Without those on the network itself: its containers reach them directly.
        """
        given = map(parse_ip, self._attachments.resolvers(network.vni))
        families = {len(subnet.base) for subnet in network.subnets}
        usable = (
            ip
            for ip in dict.fromkeys((*self.of_host(), *given))
            if len(ip) in families and not any(ip in subnet for subnet in network.subnets)
        )
        return list(islice(usable, limits.DNS_INTERCEPTED_MAX))


def _version_of(path: Path) -> _Version | None:
    try:
        found = path.stat()
    except OSError:  # it is being replaced, or there is none
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
