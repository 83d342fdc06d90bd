"""Send a container's DNS queries for its resolvers to its network's gateway.

For a container whose default route is not overlayd's: its queries do not pass the gateway by
themselves. A table of the family inet in the container's namespace translates the destination of
what is sent there to port 53 of these resolvers, and the source to the interface's own address; a
resolver that runs for the container inside its namespace, as Docker's, is covered as well. The
kernel deletes the table with the socket that made it (NFT_TABLE_F_OWNER), so without an agent the
queries go where they went before, and nobody in the container can change it.

Does not: decide which resolvers (`agent.dns.resolver_redirects`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from overlay.kernel.nft import expressions as ex
from overlay.kernel.nft.container_table import ContainerTable
from overlay.kernel.nft.expressions import Rule
from overlay.kernel.nft.table import FAMILY_INET, OUTPUT, POSTROUTING, Chain, Table
from overlay.model import Ip

TABLE_NAME: Final = "overlayd_names"
_DESTINATION, _SOURCE = -100, 100  # as nft(8) names them
_DNS_PORT: Final = 53
_PROTOCOLS: Final = (ex.UDP, ex.TCP)


def table_of(gateways: Mapping[Ip, Ip]) -> Table:
    """Return the table that sends queries for these resolvers to the gateways."""
    return Table(
        FAMILY_INET,
        TABLE_NAME,
        (),
        (
            Chain("sent", tuple(_destinations(gateways)), (OUTPUT, _DESTINATION), "nat"),
            Chain("leaving", tuple(_sources(gateways)), (POSTROUTING, _SOURCE), "nat"),
        ),
        is_owned=True,
    )


def _destinations(gateways: Mapping[Ip, Ip]) -> Iterator[Rule]:
    for resolver, gateway in sorted(gateways.items()):
        for protocol in _PROTOCOLS:
            meant = (*ex.to_range(resolver, 8 * len(resolver)), *ex.to_port(protocol, _DNS_PORT))
            yield (*meant, *ex.dnat_to(gateway, _DNS_PORT))


def _sources(gateways: Mapping[Ip, Ip]) -> Iterator[Rule]:
    for gateway in sorted(set(gateways.values())):
        for protocol in _PROTOCOLS:
            sent = (*ex.to_range(gateway, 8 * len(gateway)), *ex.to_port(protocol, _DNS_PORT))
            yield (*sent, *ex.ct_dnat(), ex.masquerade())


class ResolverRedirect(ContainerTable):
    """The table of one container, with the redirects put last."""

    def put(self, gateways: Mapping[Ip, Ip]) -> None:
        """Send queries for these resolvers, and for no others, to the gateways.

        Raises NftMissingError if the kernel has no owned tables or no NAT, else OSError.
        """
        self.write(table_of(gateways))
