"""Determine the path of a network's frames between hosts, and why it is not a faster one.

Owns: the comparison of the three paths. Does not: choose (the planner and the configuration do).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.native.controller import NativePath
from overlay.model import Network

PathName: TypeAlias = Literal["native", "fast", "bridge"]


class DataPath(NamedTuple):
    """A path, and why the frames take no faster one; empty for the fastest.

    Of the native path it says why frames for other hosts take the VXLAN device, if they do.
    """

    name: PathName
    why: str


def data_path_of(
    network: Network, reconciler: Reconciler, native_path: NativePath
) -> DataPath | None:
    """Return the path of a network's frames; None where it has no sandbox on this host."""
    if reconciler.runtime(network.vni) is None:
        return None
    if reconciler.fast_path.why:
        return DataPath("bridge", reconciler.fast_path.why)
    why = native_path.why_not(network)
    if why:
        return DataPath("fast", why)
    return DataPath("native", native_path.why_not_sent(network))
