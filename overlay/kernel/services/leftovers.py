"""Remove the tables of services from all namespaces, without stored state or a running agent."""

from __future__ import annotations

from collections.abc import Iterator

from overlay import limits
from overlay.errors import OverlayError
from overlay.kernel.nft.table import SERVICES_PREFIX
from overlay.kernel.nft.tables import NftMissingError, NftTables
from overlay.kernel.sandbox import kernel_support
from overlay.model import NodeId


def remove_tables(node_id: NodeId | None = None) -> Iterator[str]:
    """Remove a node's tables (None: every node's); yield a description of each.

    After all others, raises OverlayError or OSError for a namespace that cannot be searched.
    """
    failure: OverlayError | OSError | None = None
    start = SERVICES_PREFIX + (node_id[:3].hex() if node_id is not None else "")
    for netns_fd, where in kernel_support.namespaces():
        try:
            tables = NftTables(netns_fd, dump_size_max=limits.CONTAINER_DUMP_SIZE_MAX)
        except NftMissingError:
            return
        try:
            for family, name in tables.names():
                if name.startswith(start) and tables.delete(family, name):
                    yield f"nftables table {name} of {where}"
        except (OverlayError, OSError) as error:
            failure = error
        finally:
            tables.close()
    if failure is not None:
        raise failure
