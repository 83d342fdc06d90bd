"""The documents that a node keeps on disk, one table for each kind.

Owns: kind, key and JSON of each. Does not: write the file (`database`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from overlay.agent.state.database import Row, StateDatabase
from overlay.agent.state.state_file import LOST_KIND
from overlay.agent.state.table import Table, single
from overlay.core.dataplane.published_port import PublishedPort
from overlay.core.protocol.records import KeyId
from overlay.errors import OverlayError
from overlay.kernel.host.macvlan import InterfaceLocation
from overlay.model import Certificate, Endpoint, Ip, Vni, ip_text, parse_ip
from overlay.wire.identity.authority import Authority
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import ClusterKey, Keyring

RESTART_ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class StoredCluster:
    """The cluster that this node belongs to, and how it joined."""

    cluster_id: str  # hex
    anchor: str  # hex; the public half of the authority's key
    gossip_port: int
    vxlan_port: int
    node_name: str
    underlay: str | None  # the value of --underlay
    address: str  # the underlay address last used; empty before the first start
    seeds: tuple[str, ...] = ()  # the peers named at join: contacted while no member is alive


@dataclass(frozen=True, slots=True)
class Attachment:
    """The container side of a local endpoint: everything needed to recreate its interface."""

    endpoint_id: str  # hex
    vni: int
    target: str  # as it is shown: docker:web, netns:blue1, pid:4242
    netns_path: str
    netns_identity: tuple[int, int]  # device and inode of the namespace
    container_id: str | None
    ifname: str
    port: str  # the sandbox end of the veth pair
    subnet_index: int
    gateway: bool  # whether a default route was requested
    plugged: bool  # whether its interface was complete once; if not, a start recreates it
    parent: str = ""  # the host's interface that it is on, for networks without a sandbox
    gateway_priority: int = 0  # the attachment with the highest one has the default route
    hands_off: bool = False  # what the container's programs change in its interface stays so
    # The id by which Docker's network driver knows it: Docker moves and configures the interface.
    runtime_endpoint: str = ""
    # The resolvers that the container's runtime was given (`docker run --dns`), as addresses.
    resolvers: list[str] = field(default_factory=list)
    keep: bool = False  # for a container of this name, however much later it is made
    plugin_key: str = ""  # by which a runtime's plugin knows it: `runtimes.plugin_endpoints`


@dataclass(frozen=True, slots=True)
class AddressReservation:
    """An address of this node that a container runtime holds for a container."""

    vni: int
    ip: str
    for_any_node: bool = False  # another node may be granted it: a task of a swarm runs there

    @property
    def key(self) -> str:
        """Return its key on disk."""
        return f"{self.vni}/{self.ip}"


@dataclass(frozen=True, slots=True)
class DockerPool:
    """A pool of addresses that Docker asked for: one subnet of a Docker network."""

    pool_id: str
    subnet: str
    chosen: bool  # by overlayd: Docker named none
    ip_range: str = ""
    network_name: str = ""  # of overlayd; empty: not named
    network_id: str = ""  # Docker's; empty: the network is not created yet
    gateway: str = ""
    auxiliary: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DockerNetwork:
    """A Docker network of this host, and the network of the cluster that it is bound to."""

    network_id: str
    name: str  # of overlayd's network; empty: not known yet
    internal: bool = False
    vni: int = 0  # 0: not bound yet
    of_swarm: bool = False  # a manager of Docker's swarm creates and removes it
    freed: bool = False  # removed from the swarm: the cluster's network follows once it is unused


@dataclass(frozen=True, slots=True)
class DockerEndpoint:
    """An endpoint that Docker has created, joined to a container or not."""

    endpoint_id: str  # Docker's
    network_id: str  # Docker's
    ips: list[str]
    mac: str
    options: dict[str, str] = field(
        default_factory=dict
    )  # of its port, as Docker gave them; not stored if empty


@dataclass(frozen=True, slots=True)
class EndedEndpoint:
    """What to restore of an endpoint if its container, which ended, starts again."""

    container_id: str
    target: str
    vni: int
    name: str
    ip: str
    mac: str  # hex
    ifname: str
    gateway: bool
    aliases: list[str]
    labels: list[list[str]]
    gateway_priority: int = 0
    more_ips: list[str] = field(default_factory=list)  # not stored if empty
    removed_s: float = 0.0  # Unix time; its runtime has no such container any more
    hands_off: bool = False
    keep: bool = False

    @property
    def key(self) -> str:
        """Return its key on disk: the container's id and the network."""
        return f"{self.container_id}/{self.vni}"

    @property
    def ips(self) -> tuple[Ip, ...]:
        """Return all its addresses, the first one first."""
        return tuple(map(parse_ip, (self.ip, *self.more_ips)))

    @classmethod
    def of(cls, attachment: Attachment, endpoint: Endpoint) -> EndedEndpoint:
        """Return the ended form of an endpoint and its attachment."""
        return cls(
            container_id=attachment.container_id or attachment.target.partition(":")[2],
            target=attachment.target,
            vni=attachment.vni,
            name=endpoint.name,
            ip=ip_text(endpoint.ips[0]),
            more_ips=[ip_text(ip) for ip in endpoint.ips[1:]],
            mac=endpoint.mac.hex(),
            ifname=attachment.ifname,
            gateway=attachment.gateway,
            aliases=list(endpoint.aliases),
            labels=[list(pair) for pair in endpoint.labels],
            gateway_priority=attachment.gateway_priority,
            hands_off=attachment.hands_off,
            keep=attachment.keep,
        )


@dataclass(frozen=True, slots=True)
class StoredToken:
    """The permanent join token of an authority holder."""

    token_id: bytes
    secret: bytes = field(repr=False)


class ExposurePreference(NamedTuple):
    """A network that was exposed or hidden by hand on this host."""

    vni: Vni
    exposed: bool


class PluggedInterface(NamedTuple):
    """An interface of this host that is a port of a network."""

    vni: Vni
    interface: str
    segment: str  # the name of the physical segment
    number: int = 0  # of its port in the sandbox
    is_declared: bool = False  # by the cluster's records, not by a command here


class FormerAddresses(NamedTuple):
    """The addresses of this host's endpoints on a network that it was on before."""

    vni: Vni
    ips: tuple[Ip, ...]


@dataclass(frozen=True, slots=True)
class LostState:
    """That the state file is older than what this node has done; stored until it has caught up."""

    why: str
    copied_s: float  # Unix time: what the file has is from then
    found_s: float  # Unix time


@dataclass(frozen=True, slots=True)
class StoredContainer:
    """A bare container made on this host. Fields that are empty are not stored."""

    name: str
    host: bool = False  # it uses the host's network namespace
    shares: str = ""  # the container whose network namespace it uses
    dns_servers: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    restart: str = ""  # RESTART_ALWAYS: a start makes it again if its namespace is gone


def _to_hex(secret: Identity | Authority) -> str:
    return secret.to_bytes().hex()


def _without_empty(document: Any, *later: str) -> dict[str, Any]:
    """Leave out fields that came later, if empty: an earlier version reads what has none."""
    return {key: value for key, value in asdict(document).items() if value or key not in later}


def _encode_attachment(attachment: Attachment) -> dict[str, Any]:
    later = ("hands_off", "runtime_endpoint", "resolvers", "keep", "plugin_key")
    return _without_empty(attachment, *later)


def _encode_container(container: StoredContainer) -> dict[str, Any]:
    return {key: value for key, value in asdict(container).items() if value and key != "name"}


def _encode_ended(ended: EndedEndpoint) -> dict[str, Any]:
    return _without_empty(ended, "hands_off", "more_ips", "removed_s", "keep")


def _encode_docker_endpoint(endpoint: DockerEndpoint) -> dict[str, Any]:
    return _without_empty(endpoint, "options")


def _encode_plug(plug: PluggedInterface) -> dict[str, Any]:
    found = {"interface": plug.interface, "segment": plug.segment}
    return found | ({"is_declared": True} if plug.is_declared else {})


def _encode_published_port(port: PublishedPort) -> dict[str, Any]:
    # An earlier version reads what has no owner.
    found = port._asdict() | {"host_ip": port.host_ip.hex()}
    return {key: value for key, value in found.items() if value or key != "owner"}


def _decode_cluster(value: dict[str, Any]) -> StoredCluster:
    if "anchor" not in value or "secret" in value:
        raise OverlayError(
            "the state file describes a cluster without an authority or a keyring",
            why="an earlier development version of overlayd created it",
            hint="Start again: sudo overlayd reset, then sudo overlayd join",
        )
    return StoredCluster(**value)


def _encode_keyring(keyring: Keyring) -> dict[str, Any]:
    keys = [
        {
            "generation": key.generation,
            "made_s": key.made_s,
            "secret": key.secret.hex(),
            "warrant": key.warrant.hex(),
        }
        for key in keyring.keys
    ]
    return {"keys": keys, "sealing": list(keyring.sealing)}


def _decode_keyring(value: dict[str, Any]) -> Keyring:
    keys = [
        ClusterKey(
            key["generation"],
            key["made_s"],
            bytes.fromhex(key["secret"]),
            bytes.fromhex(key["warrant"]),
        )
        for key in value["keys"]
    ]
    return Keyring(keys, KeyId(*value["sealing"]))


def _encode_certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "address": certificate.address.hex(),
        "not_before_s": certificate.not_before_s,
        "not_after_s": certificate.not_after_s,
        "signature": certificate.signature.hex(),
    }


def _decode_certificate(value: dict[str, Any]) -> Certificate:
    return Certificate(
        Ip(bytes.fromhex(value["address"])),
        value["not_before_s"],
        value["not_after_s"],
        bytes.fromhex(value["signature"]),
    )


def _decode_attachment(_key: str, value: dict[str, Any]) -> Attachment:
    device, inode = value["netns_identity"]
    return Attachment(**{"plugged": True, **value, "netns_identity": (device, inode)})


def _decode_removal(mark: str, value: dict[str, Any]) -> InterfaceLocation:
    device, inode = value["identity"]
    return InterfaceLocation(value["netns_path"], (device, inode), mark)


# --- the kinds --------------------------------------------------------------------------

# One document each.
EPOCH = single("epoch", int, int)  # how often this node has started
IDENTITY = single("identity", _to_hex, lambda text: Identity.from_bytes(bytes.fromhex(text)))
CLUSTER = single("cluster", asdict, _decode_cluster)
AUTHORITY = single("authority", _to_hex, lambda text: Authority(bytes.fromhex(text)))
CERTIFICATE = single("certificate", _encode_certificate, _decode_certificate)
KEYRING = single("keyring", _encode_keyring, _decode_keyring)
LOST = single(LOST_KIND, asdict, lambda value: LostState(**value))
TOKEN = single(
    "token",
    lambda token: {"id": token.token_id.hex(), "secret": token.secret.hex()},
    lambda value: StoredToken(bytes.fromhex(value["id"]), bytes.fromhex(value["secret"])),
)

# One document for each thing of its kind.
ATTACHMENTS: Table[Attachment] = Table(
    "endpoint", attrgetter("endpoint_id"), _encode_attachment, _decode_attachment
)
ENDED: Table[EndedEndpoint] = Table(
    "ended", attrgetter("key"), _encode_ended, lambda _, value: EndedEndpoint(**value)
)
EXPOSURES: Table[ExposurePreference] = Table(
    "exposure",
    lambda preference: str(preference.vni),
    attrgetter("exposed"),
    lambda vni, value: ExposurePreference(Vni(int(vni)), bool(value)),
)
PLUGS: Table[PluggedInterface] = Table(
    "plug",
    lambda plug: f"{plug.vni}-{plug.number}" if plug.number else str(plug.vni),
    _encode_plug,
    lambda key, value: PluggedInterface(
        Vni(int(key.partition("-")[0])), number=int(key.partition("-")[2] or 0), **value
    ),
)
FORMER_HOST_ADDRESSES: Table[FormerAddresses] = Table(
    "host-addresses",
    lambda former: str(former.vni),
    lambda former: [ip.hex() for ip in former.ips],
    lambda vni, value: FormerAddresses(
        Vni(int(vni)), tuple(Ip(bytes.fromhex(text)) for text in value)
    ),
)
PUBLISHED_PORTS: Table[PublishedPort] = Table(
    "published",
    lambda port: f"{port.host_binding}/{port.protocol}",
    _encode_published_port,
    lambda _, value: PublishedPort(**value | {"host_ip": bytes.fromhex(value["host_ip"])}),
)
RESERVATIONS: Table[AddressReservation] = Table(
    "reservation", attrgetter("key"), asdict, lambda _, value: AddressReservation(**value)
)
DOCKER_POOLS: Table[DockerPool] = Table(
    "docker-pool", attrgetter("pool_id"), asdict, lambda _, value: DockerPool(**value)
)
DOCKER_NETWORKS: Table[DockerNetwork] = Table(
    "docker-network", attrgetter("network_id"), asdict, lambda _, value: DockerNetwork(**value)
)
DOCKER_ENDPOINTS: Table[DockerEndpoint] = Table(
    "docker-endpoint",
    attrgetter("endpoint_id"),
    _encode_docker_endpoint,
    lambda _, value: DockerEndpoint(**value),
)
# macvlan and ipvlan interfaces whose endpoint is withdrawn.
INTERFACE_REMOVALS: Table[InterfaceLocation] = Table(
    "unplugging",
    attrgetter("mark"),
    lambda place: {"netns_path": place.netns_path, "identity": place.netns_identity},
    _decode_removal,
)
# The only kind that outlives a membership.
CONTAINERS: Table[StoredContainer] = Table(
    "container",
    attrgetter("name"),
    _encode_container,
    lambda name, value: StoredContainer(name, **value),
)


def membership_rows(
    key: ClusterKey,
    *,
    authority: Authority | None = None,
    certificate: Certificate | None = None,
) -> list[Row]:
    """Return the rows that store this node's membership, before it has a cluster document.

    They also delete what an interrupted attempt to create or join another cluster has left.
    """
    return [
        TOKEN.deletion(),
        AUTHORITY.deletion() if authority is None else AUTHORITY.row(authority),
        CERTIFICATE.deletion() if certificate is None else CERTIFICATE.row(certificate),
        KEYRING.row(Keyring([key], key.id)),
    ]


def ensure_identity(state: StateDatabase) -> Identity:
    """Return this node's identity; create and store it if there is none."""
    identity = IDENTITY.find(state)
    if identity is None:
        identity = Identity.generate(os.urandom)
        IDENTITY.put(state, identity)
    return identity


def require_keyring(state: StateDatabase) -> Keyring:
    """Return the cluster's keys; every member has at least one."""
    keyring = KEYRING.find(state)
    assert keyring is not None, "every member has a key"
    return keyring


def next_epoch(state: StateDatabase) -> int:
    """Increment and return the number of starts; it is durable before it is used."""
    epoch = (EPOCH.find(state) or 0) + 1
    EPOCH.put(state, epoch)
    return epoch
