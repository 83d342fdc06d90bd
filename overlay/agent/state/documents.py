"""The documents about this host's endpoints, containers and interfaces, one table for each kind.

Owns: kind, key and JSON of each. Does not: write the file (`database`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from overlay.agent.state.table import Table, without_empty
from overlay.core.dataplane.published_port import PublishedPort
from overlay.kernel.host.macvlan import InterfaceLocation
from overlay.model import Endpoint, Ip, Vni, ip_text, parse_ip

RESTART_ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class WithdrawnRecord:
    """An endpoint's name, addresses and labels, if a host with this node's identity withdrew it."""

    name: str
    ips: list[str]
    aliases: list[str]
    labels: list[list[str]]

    @classmethod
    def of(cls, endpoint: Endpoint) -> WithdrawnRecord:
        """Return it for the record as it was."""
        labels = [list(pair) for pair in endpoint.labels]
        return cls(endpoint.name, [*map(ip_text, endpoint.ips)], list(endpoint.aliases), labels)


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
    withdrawn: WithdrawnRecord | None = None  # until it has a record again


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
class EndedEndpoint:
    """An endpoint to restore if its container, which ended, starts again."""

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
    removed_s: float = 0.0  # Unix time; its runtime no longer has such a container
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
class StoredContainer:
    """A bare container made on this host. Fields that are empty are not stored."""

    name: str
    host: bool = False  # it uses the host's network namespace
    shares: str = ""  # the container whose network namespace it uses
    dns_servers: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    restart: str = ""  # RESTART_ALWAYS: a start makes it again if its namespace is gone


def _encode_attachment(attachment: Attachment) -> dict[str, Any]:
    later = ("hands_off", "runtime_endpoint", "resolvers", "keep", "plugin_key", "withdrawn")
    found = without_empty(attachment, *later)
    if attachment.withdrawn is not None:
        found["withdrawn"] = asdict(attachment.withdrawn)
    return found


def _encode_container(container: StoredContainer) -> dict[str, Any]:
    return {key: value for key, value in asdict(container).items() if value and key != "name"}


def _encode_ended(ended: EndedEndpoint) -> dict[str, Any]:
    return without_empty(ended, "hands_off", "more_ips", "removed_s", "keep")


def _encode_plug(plug: PluggedInterface) -> dict[str, Any]:
    found = {"interface": plug.interface, "segment": plug.segment}
    return found | ({"is_declared": True} if plug.is_declared else {})


def _encode_published_port(port: PublishedPort) -> dict[str, Any]:
    # An earlier version reads what has no owner.
    found = port._asdict() | {"host_ip": port.host_ip.hex()}
    return {key: value for key, value in found.items() if value or key != "owner"}


def _decode_attachment(_key: str, value: dict[str, Any]) -> Attachment:
    device, inode = value["netns_identity"]
    found = {"plugged": True, **value, "netns_identity": (device, inode)}
    if "withdrawn" in value:
        found["withdrawn"] = WithdrawnRecord(**value["withdrawn"])
    return Attachment(**found)


def _decode_removal(mark: str, value: dict[str, Any]) -> InterfaceLocation:
    device, inode = value["identity"]
    return InterfaceLocation(value["netns_path"], (device, inode), mark)


# --- the kinds --------------------------------------------------------------------------

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
