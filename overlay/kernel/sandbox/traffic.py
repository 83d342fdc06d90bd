"""Read the counters of a sandbox's interfaces.

Owns: which end of an interface counts. A container's traffic is counted at its own end, because the
fast path hands frames to that end past the sandbox's; the kernel counts these since Linux 6.8, and
earlier ones count them only at the VTEP.
Does not: add up anything.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import SHORTCUT_PREFIX
from overlay.core.dataplane.traffic import TrafficCounters
from overlay.core.dataplane.tunnel_devices import DEVICE_BASES
from overlay.kernel.netlink import codec, link_decoder, link_requests
from overlay.kernel.netlink.codec import NetlinkMessage
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.link_lookup import link_elsewhere
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.kernel.sandbox.sandbox import Sandbox

_STATS: Final = struct.Struct("=4Q")  # the first of struct rtnl_link_stats64 (linux/if_link.h)


class SandboxTraffic(NamedTuple):
    """The counters of one sandbox: of its VTEP, and of each port as the container's end has them.

    `tunnel` is None without a VTEP, and includes what came and left by a shortcut instead.
    """

    tunnel: TrafficCounters | None
    ports: dict[str, TrafficCounters]


def read_traffic(socket: NetlinkSocket) -> SandboxTraffic:
    """Return the counters of a sandbox; `socket` is a socket in it.

    Raises TornDumpError if its links change during every attempt.
    """
    tunnel: TrafficCounters | None = None
    ports: dict[str, TrafficCounters] = {}
    for message in socket.dump(codec.RTM_GETLINK, link_decoder.DUMP_BODY):
        link = link_decoder.decode(message)
        is_shortcut = link.name.startswith(SHORTCUT_PREFIX)
        if link.kind == "vxlan" or is_shortcut:
            # Of two devices, while the network is switched to encryption.
            found = _of_shortcut(socket, link, message) if is_shortcut else _counters(message)
            tunnel = found if tunnel is None else tunnel.plus(found)
        elif link.kind == "veth" and link.master:
            ports[link.name] = _of_other_end(socket, link) or _mirrored(_counters(message))
    return SandboxTraffic(tunnel, ports)


def read_tunnel_bytes(sandbox: Sandbox) -> int | None:
    """Return the bytes sent through the VTEP of a sandbox; None while there is none.

    Of the first one, if the network has several segments.
    """
    if sandbox.netns_fd < 0:
        return None
    found = []
    for base in DEVICE_BASES:
        with contextlib.suppress(NetlinkError):
            found.append(sandbox.socket.get(link_requests.get_link(f"{base}0"))[0])
    return sum(_counters(each).transmit_bytes for each in found) if found else None


def _of_shortcut(socket: NetlinkSocket, link: LinkInfo, message: NetlinkMessage) -> TrafficCounters:
    """Return what came and left by a shortcut, without what came back by it to the VTEP."""
    own, end = _counters(message), _of_other_end(socket, link)
    if end is None:
        return own
    return TrafficCounters(
        max(0, own.receive_bytes - end.transmit_bytes),
        max(0, own.receive_packets - end.transmit_packets),
        max(0, end.receive_bytes - end.transmit_bytes),
        max(0, end.receive_packets - end.transmit_packets),
    )


def _of_other_end(socket: NetlinkSocket, port: LinkInfo) -> TrafficCounters | None:
    """Return the counters of the other end of a port; None if it is out of reach."""
    if port.netns < 0 or not port.peer:
        return None
    found = link_elsewhere(socket, port.peer, port.netns)
    return None if found is None else _counters(found)


def _counters(message: NetlinkMessage) -> TrafficCounters:
    received, sent, received_bytes, sent_bytes = _STATS.unpack_from(link_decoder.stats_of(message))
    return TrafficCounters(received_bytes, received, sent_bytes, sent)


def _mirrored(of_port: TrafficCounters) -> TrafficCounters:
    """Return a port's counters as its other end would have them."""
    return TrafficCounters(
        of_port.transmit_bytes,
        of_port.transmit_packets,
        of_port.receive_bytes,
        of_port.receive_packets,
    )
