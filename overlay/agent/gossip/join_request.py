"""Join requests: their options, resolving the peers to contact, and the errors.

Does not: know HTTP.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from overlay import limits
from overlay.errors import ConflictError, TimedOutError, UsageError
from overlay.model import Ip, fit_name, ip_text

HELLO_RETRY_INTERVAL_S = 0.25


@dataclass(frozen=True, slots=True)
class JoinSpec:
    """The options of `overlayd join`."""

    peers: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    underlay: str | None = None
    name: str | None = None
    vxlan_port: int | None = None
    gossip_port: int | None = None


@dataclass(frozen=True, slots=True)
class JoinSeed:
    """One address to contact, and the peer argument that it was resolved from."""

    peer: str
    address: Ip
    port: int


def default_name() -> str:
    """Return the host's name as a node name."""
    return fit_name(socket.gethostname().partition(".")[0].lower(), "node")


def next_name(name: str) -> str:
    """Return a name to propose where `name` is taken: vm1-2 for vm1, vm1-3 for vm1-2."""
    stem, dash, number = name.rpartition("-")
    if not (dash and number.isdecimal() and len(number) < 4):
        stem, number = name, "1"
    ending = f"-{int(number) + 1}"
    return stem[: limits.NAME_LENGTH_MAX - len(ending)].rstrip("-.") + ending


def ports_of_new_cluster(spec: JoinSpec) -> tuple[int, int]:
    """Return the gossip and VXLAN ports of a cluster to create; raises UsageError if equal."""
    gossip_port = spec.gossip_port or limits.GOSSIP_PORT_DEFAULT
    vxlan_port = spec.vxlan_port or limits.VXLAN_PORT_DEFAULT
    if gossip_port == vxlan_port:
        raise UsageError(
            f"gossip and VXLAN cannot both use UDP port {vxlan_port}",
            why="a UDP port of a host serves one of the two, and a cluster keeps its ports for "
            "as long as it exists",
            hint="Choose different ports with --gossip-port and --vxlan-port (default: "
            f"{limits.GOSSIP_PORT_DEFAULT} and {limits.VXLAN_PORT_DEFAULT})",
            field="gossip_port" if spec.vxlan_port is None else "vxlan_port",
        )
    return gossip_port, vxlan_port


async def resolve(peers: Sequence[str], port: int) -> list[JoinSeed]:
    """Return the addresses of peers given as `host`, `host:port` or `[v6]:port`.

    Raises UsageError for an invalid peer. A name that does not resolve is an error only if no other
    peer resolves.
    """
    if len(peers) > limits.SEED_COUNT_MAX:
        raise UsageError(
            f"at most {limits.SEED_COUNT_MAX} peers are allowed",
            hint="Name some of them: each knows the others",
            field="peers",
        )
    loop = asyncio.get_running_loop()
    seeds: list[JoinSeed] = []
    failures: list[str] = []
    for peer in peers:
        host, peer_port = split_peer(peer, port)
        try:
            found = await loop.getaddrinfo(host, peer_port, type=socket.SOCK_DGRAM)
        except OSError as error:
            failures.append(f"{host}: {error.strerror}")
            continue
        except ValueError:  # not a DNS name: a label is too long, has a zero, or is not in IDNA
            failures.append(f"{host[:64]!r}: not a valid host name")
            continue
        for _, _, _, _, sockaddr in found:
            address = Ip(ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]).packed)
            seeds.append(JoinSeed(peer, address, peer_port))
    if peers and not seeds:
        raise UsageError(
            "none of the peers has an address",
            why="; ".join(failures),
            hint="Name a peer by its underlay address, such as 192.168.56.11",
        )
    return seeds


def split_peer(peer: str, port: int) -> tuple[str, int]:
    """Split `host[:port]`; raises UsageError."""
    host, number = peer, ""
    if peer.startswith("["):
        host, _, rest = peer[1:].partition("]")
        number = rest.removeprefix(":")
    elif peer.count(":") == 1:
        host, _, number = peer.partition(":")
    if not host or any(c.isspace() or c in "/@" for c in host):
        raise UsageError(f"invalid peer {peer!r}", hint="Use HOST or HOST:PORT", field="peers")
    if number:
        if not number.isdigit() or not 0 < int(number) < 65536:
            raise UsageError(
                f"invalid port in peer {peer!r}", hint="Ports are 1 to 65535", field="peers"
            )
        port = int(number)
    return host, port


def no_answer_error(seeds: Sequence[JoinSeed], waited_s: float) -> TimedOutError:
    """Return the error for a join without any answer.

    Members do not answer a host that has neither the cluster's key nor a token.
    """
    tried = ", ".join(f"{ip_text(seed.address)} port {seed.port}/udp" for seed in seeds[:4])
    return TimedOutError(
        f"no member answered within {waited_s:.0f} s at {tried}",
        why="either no agent runs there, or a firewall drops UDP, or the token belongs to another "
        "cluster (members do not answer a host without a valid token, by design)",
        hint="On the peer: 'overlayd status' shows its address and port, 'overlayd token show' "
        "its token",
    )


def name_taken_error(name: str) -> ConflictError:
    """Return the error for a name that another living node has, with a proposal."""
    return ConflictError(
        f"another living node of the cluster is named {name}",
        why="the name of a node stands for one host",
        hint=f"Choose another one: sudo overlayd join PEER --name {next_name(name)} "
        "--token-file FILE",
        field="name",
    )


def lost_state_error(sandboxes: Sequence[str]) -> ConflictError:
    """Return the error for a new cluster on a host whose kernel still has networks of another."""
    one = len(sandboxes) == 1
    return ConflictError(
        f"this host has {len(sandboxes)} network{'' if one else 's'} of a cluster that its state "
        "directory does not know",
        why=f"{sandboxes[0]}{'' if one else ' and others'} may connect containers: the state was "
        "lost, or another --state-dir was used. A new cluster would not reach the former one",
        hint="To return to it, with its containers: sudo overlayd join PEER --token-file FILE   "
        "To give them up: sudo overlayd reset, then join",
    )


def clock_error(ahead_s: float) -> ConflictError:
    """Return the error for a clock too far off; `ahead_s` is negative for one behind, in seconds.

    Members admit a peer only while its certificate is in force by their own clock.
    """
    size_s = abs(ahead_s)
    days = round(size_s / 86_400)
    amount = f"{days} day{'' if days == 1 else 's'}" if days else f"{size_s / 3600:.0f} hours"
    return ConflictError(
        f"this host's clock is at least {amount} {'ahead of' if ahead_s > 0 else 'behind'} the "
        "cluster's",
        why="certificates of members are not in force at the time that it shows",
        hint="Set it right ('date' shows it, 'timedatectl' whether it is synchronized), then join "
        "again",
    )


def foreign_peer_error(seeds: Sequence[JoinSeed], cluster_id: str) -> ConflictError:
    """Return the error for peers that a member names, none of which is of its cluster."""
    tried = ", ".join(f"{ip_text(seed.address)} port {seed.port}/udp" for seed in seeds[:4])
    return ConflictError(
        f"no member of this host's cluster answers at {tried}",
        why=f"this host is already in cluster {cluster_id[:8]}; the peer is in another one, or no "
        "agent runs there, or a firewall drops UDP",
        hint="'overlayd status' on both shows their clusters. To change to the peer's: sudo "
        "overlayd leave, then sudo overlayd join PEER --token-file FILE",
        field="peers",
    )


def own_address_error(own: Ip) -> UsageError:
    """Return the error for a peer that is this host itself."""
    return UsageError(
        f"peer {ip_text(own)} is this host itself",
        hint="Give another host as the peer",
        field="peers",
    )
