"""The values that all layers share: addresses, networks, endpoints, nodes.

Addresses are packed bytes (4 or 16 for IP, 6 for MAC): they hash fast, sort by number and are
what both netlink and the wire carry. Text is used only at the edges.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import NewType

from overlay import limits

NodeId = NewType("NodeId", bytes)
"""16 bytes: the head of SHA-256 over the node's Ed25519 public key."""
Ip = NewType("Ip", bytes)
"""A packed IPv4 (4 bytes) or IPv6 (16 bytes) address, network order."""
Mac = NewType("Mac", bytes)
"""A packed 48-bit Ethernet address."""
Vni = NewType("Vni", int)
"""A 24-bit VXLAN network identifier (RFC 7348); never 0 here."""

NODE_ID_SIZE = 16
_LOOPBACK_IPV6 = bytes(15) + b"\1"
# At most one dot between two letters or digits: DNS has no empty labels. ASCII only, as otherwise
# letters of other alphabets would match whose other case is an ASCII letter. No text matches in
# two ways: that would take time exponential in its length.
NAME_PATTERN = re.compile(r"[a-z0-9]([_-]*(\.[_-]*)?[a-z0-9])*", re.IGNORECASE | re.ASCII)


def ip_text(ip: Ip) -> str:
    """Return the usual text form of a packed address."""
    return str(ipaddress.ip_address(bytes(ip)))


def parse_ip(text: str) -> Ip:
    """Return a packed address; raises ValueError if `text` is not one."""
    return Ip(ipaddress.ip_address(text).packed)


def is_loopback(ip: Ip) -> bool:
    """Return whether an address is every host's own (RFC 1122 section 3.2.1.3, RFC 4291)."""
    return ip[0] == 127 if len(ip) == 4 else ip == _LOOPBACK_IPV6


def printable(text: str) -> str:
    """Return a text in which `?` stands for what could control a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def mac_text(mac: Mac) -> str:
    """Return six hex pairs joined by colons."""
    return mac.hex(":")


def parse_mac(text: str) -> Mac:
    """Return a packed MAC address; raises ValueError if `text` is not one."""
    raw = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if len(raw) != 6:
        raise ValueError(f"{text!r} is not a MAC address")
    return Mac(raw)


def node_text(node_id: NodeId) -> str:
    """Return a node's short name for people, such as `n-3f9c21ab`."""
    return f"n-{node_id[:4].hex()}"


def node_id_of(sign_key: bytes) -> NodeId:
    """Return the node id of an Ed25519 public key."""
    return NodeId(hashlib.sha256(sign_key).digest()[:NODE_ID_SIZE])


def valid_name(name: str) -> bool:
    """Return whether `name` is valid for a network, node or endpoint.

    It must be a DNS label, or several joined by dots.
    """
    return len(name) <= limits.NAME_LENGTH_MAX and NAME_PATTERN.fullmatch(name) is not None


def name_key(name: str) -> str:
    """Return a name in lower case; the very same one if it is, as there may be very many."""
    lower = name.lower()
    return name if lower == name else lower


def fit_name(text: str, otherwise: str) -> str:
    """Return `text` changed to a valid name, else `otherwise`.

    Hosts and runtimes allow names that are not valid in DNS.
    """
    if valid_name(text):
        return text
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[: limits.NAME_LENGTH_MAX].strip("-_.")
    return kept if valid_name(kept) else otherwise


def mac_for(vni: Vni, ip: Ip) -> Mac:
    """Return the MAC of an address, stable across restarts and moves.

    The first byte is 0x02: locally administered, unicast (IEEE 802 section 8.2).
    """
    digest = hashlib.blake2s(int(vni).to_bytes(3, "big") + ip, digest_size=5).digest()
    return Mac(b"\x02" + digest)


def link_local_ip(mac: Mac) -> Ip:
    """Return the link-local address of a MAC (RFC 4291 appendix A)."""
    identifier = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return Ip(b"\xfe\x80" + bytes(6) + identifier)


GATEWAY_MAC_PREFIX = b"\x06"
"""The first byte of all gateways' MACs, locally administered and unicast; no container's."""


def gateway_mac(vni: Vni, subnet_index: int) -> Mac:
    """Return the gateway's MAC for a subnet, the same on every host."""
    seed = int(vni).to_bytes(3, "big") + bytes([subnet_index])
    return Mac(GATEWAY_MAC_PREFIX + hashlib.blake2s(seed, digest_size=5).digest())


@dataclass(frozen=True, slots=True)
class Subnet:
    """One address range of a network, with its gateway."""

    base: Ip
    prefix_length: int
    gateway: Ip
    # (base, prefix length): for requests that name no address
    ip_range: tuple[Ip, int] | None = None
    auxiliary: tuple[tuple[str, Ip], ...] = ()  # in use by other devices: never allocated
    block_length: int = 0  # prefix length of each host's block; 0: hosts share

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The range as a value of the standard library."""
        return ipaddress.ip_network((bytes(self.base), self.prefix_length))

    def __contains__(self, ip: object) -> bool:
        if not isinstance(ip, bytes) or len(ip) != len(self.base):
            return False
        shift = 8 * len(ip) - self.prefix_length
        return int.from_bytes(ip, "big") >> shift == int.from_bytes(self.base, "big") >> shift

    def __str__(self) -> str:
        return f"{ip_text(self.base)}/{self.prefix_length}"


@dataclass(frozen=True, slots=True)
class Network:
    """A cluster-wide L2 domain; written by its creator alone."""

    vni: Vni
    name: str
    subnets: tuple[Subnet, ...]
    creator: NodeId
    internal: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    isolate_subnets: bool = False  # no routing between this network's own subnets


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One container interface on one network; written by its node."""

    endpoint_id: bytes  # 8 random bytes, drawn at attach
    vni: Vni
    name: str
    mac: Mac
    ips: tuple[Ip, ...]  # one per subnet used: the first is the primary one
    aliases: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


RESERVED_NETWORK_NAMES = ("none", "host")
"""Values of `container add --network` that mean no network.

No network can have these names.
"""
LABEL_PREFIX = "overlayd."
"""Prefix of labels that only agents set."""
HOST_LABEL = (LABEL_PREFIX + "host", "1")


PORT_SECURITY_OFF_LABEL = (LABEL_PREFIX + "port-security", "off")
"""On a network or an endpoint: allows any source MAC and address."""


ANY_NAME_LABEL = (LABEL_PREFIX + "any-name", "on")
"""On a network: names with dots are answered as they are, not only below the cluster's domain."""


SHARED_NAME_LABEL = (LABEL_PREFIX + "shared-name", "on")
"""On an endpoint: others with this label may have its name; DNS answers all of them."""


EVPN_LABEL = (LABEL_PREFIX + "evpn", "on")
"""On a network: hosts that speak BGP EVPN announce it, and take what others announce of it."""


DEFAULT_DENY_LABEL = (LABEL_PREFIX + "default-deny", "on")
"""On a network: a new connection that no policy allows is denied."""


ISOLATED_LABEL = (LABEL_PREFIX + "isolated", "on")
"""On an endpoint: its port reaches no other isolated one."""


NOT_ISOLATED_LABEL = (LABEL_PREFIX + "isolated", "off")
"""On an endpoint: its port is not isolated, even where its network isolates ports."""


ISOLATE_PORTS_LABEL = (LABEL_PREFIX + "isolate-ports", "on")
"""On a network: the ports of its containers are isolated, unless an endpoint says otherwise."""


def reserved_ips(network: Network) -> frozenset[Ip]:
    """Return the addresses of a network that no container has: of gateways and other devices."""
    gateways = (subnet.gateway for subnet in network.subnets)
    others = (ip for subnet in network.subnets for _, ip in subnet.auxiliary)
    return frozenset((*gateways, *others))


def container_ips(network: Network, endpoint: Endpoint) -> tuple[Ip, ...]:
    """Return those addresses of an endpoint that a container on the network can have.

    A member may write any address into its records, such as one of another host's own services.
    """
    reserved = reserved_ips(network)
    return tuple(
        ip
        for ip in endpoint.ips
        if ip not in reserved and any(ip in subnet for subnet in network.subnets)
    )


def has_port_security_off(network: Network, endpoint: Endpoint) -> bool:
    """Return whether port security is off for an endpoint.

    It is for host endpoints: a host routes.
    """
    return (
        PORT_SECURITY_OFF_LABEL in network.labels
        or PORT_SECURITY_OFF_LABEL in endpoint.labels
        or is_host(endpoint)
    )


def shares_name(endpoint: Endpoint) -> bool:
    """Return whether other endpoints that share theirs may have an endpoint's name."""
    return SHARED_NAME_LABEL in endpoint.labels


def has_any_name(network: Network) -> bool:
    """Return whether a network's DNS answers names with dots outside the cluster's domain."""
    return ANY_NAME_LABEL in network.labels


def has_default_deny(network: Network) -> bool:
    """Return whether a network denies new connections that no policy allows."""
    return DEFAULT_DENY_LABEL in network.labels


def isolates_ports(network: Network) -> bool:
    """Return whether a network's containers reach each other only where one is not isolated."""
    return ISOLATE_PORTS_LABEL in network.labels


def isolation_of(endpoint: Endpoint) -> bool | None:
    """Return whether an endpoint says that it is isolated, or is not; None: it says neither."""
    if ISOLATED_LABEL in endpoint.labels:
        return True
    return False if NOT_ISOLATED_LABEL in endpoint.labels else None


def is_isolated(network: Network, endpoint: Endpoint) -> bool:
    """Return whether an endpoint reaches no other isolated one; a host is never isolated."""
    if is_host(endpoint):
        return False
    own = isolation_of(endpoint)
    return ISOLATE_PORTS_LABEL in network.labels if own is None else own


def is_exported(network: Network) -> bool:
    """Return whether a network reaches beyond the cluster by BGP EVPN."""
    return EVPN_LABEL in network.labels


def is_host(endpoint: Endpoint) -> bool:
    """Return whether an endpoint is a host's, not a container's."""
    return HOST_LABEL in endpoint.labels


@dataclass(frozen=True, slots=True)
class Grant:
    """`[first, last]` of a network's addresses, granted to `grantee`.

    `generation` is one more than that of the space it was cut from (0 for the creator's own), so
    that any set of grants has one order in which to apply them.
    """

    vni: Vni
    first: Ip
    last: Ip
    grantee: NodeId
    generation: int
    request_id: bytes  # 8 bytes from the requester: a repeated request gets the same grant


@dataclass(frozen=True, slots=True)
class Certificate:
    """The authority's signature that an identity is a member, under a name.

    The card contains the rest of what it binds: the node's keys and its name. The address is the
    one at admission or renewal: the node may move without a new certificate.
    """

    address: Ip
    not_before_s: int  # Unix time in seconds
    not_after_s: int  # no admission by it afterwards; known members stay known
    signature: bytes


@dataclass(frozen=True, slots=True)
class Card:
    """A node's identity and address, signed by itself."""

    node_id: NodeId
    name: str
    sign_key: bytes  # Ed25519 public key, 32 bytes; node_id is derived from it
    seal_key: bytes  # X25519 public key, 32 bytes
    address: Ip  # underlay: gossip and VTEP
    gossip_port: int
    epoch: int  # grows with every start and every change of this card; on disk before use
    underlay_mtu: int
    software: str
    left: bool = False  # the last card: the node has left on purpose
    certificate: Certificate | None = None  # None only where nobody verifies it (simulation)
    raw: bytes = field(default=b"", compare=False, repr=False)  # the signed bytes as sent
    signature: bytes = field(default=b"", compare=False, repr=False)
