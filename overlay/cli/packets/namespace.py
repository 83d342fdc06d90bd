"""Open the network namespace that packets are sent from, as the agent has named it.

Owns: the errors for one that is gone, and for users who may not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from overlay.client.api import JsonObject
from overlay.errors import ForbiddenError, NotFoundError
from overlay.kernel import netns


@contextlib.contextmanager
def opened(found: JsonObject) -> Iterator[int | None]:
    """Yield a descriptor of the source's namespace, None for the host's own.

    `found` is the answer of GET /v1/ping. Raises ForbiddenError or NotFoundError.
    """
    if os.geteuid() != 0:
        raise ForbiddenError(
            "only root may send from a container",
            hint="Use sudo; 'overlayd ping ENDPOINT -c 0' shows the way without sending",
        )
    place = found["namespace"]
    if place["path"] is None:
        yield None
        return
    descriptor = netns.open_same(Path(place["path"]), (place["device"], place["inode"]))
    if descriptor is None:
        raise NotFoundError(
            f"{found['source']['name']} has ended: its network namespace is gone",
            hint="overlayd endpoint ls",
        )
    with netns.closing(descriptor):
        yield descriptor
