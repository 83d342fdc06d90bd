"""Send a container's DNS queries for Docker's resolver to a server of overlayd's inside it.

Docker's resolver listens inside the container, at 127.0.0.11. A table of the family inet in the
container's namespace translates that destination to `SERVER`, before Docker's own table does,
except for what the server itself sends. The kernel deletes the table with the socket that made it
(NFT_TABLE_F_OWNER): without an agent Docker's resolver is asked as before.

Does not: decide which containers (`agent.dns.docker_resolvers`).
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.container_table import ContainerTable
from overlay.kernel.nft.table import FAMILY_INET, OUTPUT, Chain, Table
from overlay.model import Ip

TABLE_NAME: Final = "overlayd_docker_names"
DOCKERS: Final = Ip(ipaddress.ip_address("127.0.0.11").packed)
SERVER: Final = Ip(ipaddress.ip_address("127.0.0.153").packed)
_BEFORE_DOCKERS: Final = -110  # Docker's table has the usual priority, -100
_DNS_PORT: Final = 53
_UDP_SOCKETS: Final = Path("/proc/thread-self/net/udp")
_DOCKERS_IN_PROC: Final = f" {int.from_bytes(DOCKERS, 'little'):08X}:"


def table() -> Table:
    """Return the table of a container."""
    of_server = (*ex.from_range(SERVER, 32), ex.accept())
    asked = (
        (
            *ex.to_range(DOCKERS, 32),
            *ex.to_port(protocol, _DNS_PORT),
            *ex.dnat_to(SERVER, _DNS_PORT),
        )
        for protocol in (ex.UDP, ex.TCP)
    )
    chain = Chain("asked", (of_server, *asked), (OUTPUT, _BEFORE_DOCKERS), "nat")
    return Table(FAMILY_INET, TABLE_NAME, (), (chain,), is_owned=True)


def is_here() -> bool:
    """Return whether Docker's resolver listens in the thread's namespace.

    Programs there may open a million sockets: it is not found among so many.
    """
    with _UDP_SOCKETS.open(encoding="ascii") as table:
        return _DOCKERS_IN_PROC in table.read(limits.CONTAINER_TABLE_SIZE_MAX)


class DockerResolverTable(ContainerTable):
    """The table of one container, there from the start."""

    def __init__(self, netns_fd: int) -> None:
        """Put the table into a namespace. Raises NftMissingError, OSError."""
        super().__init__(netns_fd)
        try:
            self.write(table())
        except BaseException:
            self.close()
            raise
