"""What a node keeps about itself and its cluster, as stored values.

Owns: the JSON shapes of identity, cluster and attachments in the state file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from overlay.agent.state.database import StateDatabase
from overlay.core.dataplane.published_port import PublishedPort
from overlay.core.protocol.records import KeyId
from overlay.errors import OverlayError
from overlay.model import Certificate, Endpoint, Ip, Vni, ip_text
from overlay.wire.identity.authority import Authority
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import ClusterKey, Keyring

_KEY_BYTES = ("secret", "warrant")
CONTAINER_KIND = "container"  # bare containers made here: they outlive a membership


@dataclass(frozen=True, slots=True)
class StoredCluster:
    """The cluster this node belongs to and how it takes part in it."""

    cluster_id: str  # hex
    anchor: str  # hex; the public half of the authority's key
    gossip_port: int
    vxlan_port: int
    node_name: str
    underlay: str | None  # as asked for with --underlay
    address: str  # the underlay address last used; empty before the first start
    seeds: tuple[str, ...] = ()  # the peers named at join: knocked at while alone


@dataclass(frozen=True, slots=True)
class Attachment:
    """A local endpoint's container side: what is needed to make it again."""

    endpoint_id: str  # hex
    vni: int
    target: str  # as people see it: docker:web, netns:blue1, pid:4242
    netns_path: str
    netns_identity: tuple[int, int]  # device and inode of the namespace
    container_id: str | None
    ifname: str
    port: str  # the sandbox end of the veth pair
    subnet_index: int
    gateway: bool  # whether a default route was asked for
    plugged: bool  # whether its interface was whole once; if not, a start makes it anew
    parent: str = ""  # the host's interface that it is on, where there is no sandbox
    gateway_priority: int = 0  # of several with a default route, the highest has it


@dataclass(frozen=True, slots=True)
class EndedEndpoint:
    """An endpoint whose container ended and may start again: what it had."""

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

    @property
    def key(self) -> str:
        """Return what tells it from others."""
        return f"{self.container_id}/{self.vni}"

    @classmethod
    def of(cls, attachment: Attachment, endpoint: Endpoint) -> EndedEndpoint:
        """Return what there is to remember of an endpoint."""
        return cls(
            container_id=attachment.container_id or "",
            target=attachment.target,
            vni=attachment.vni,
            name=endpoint.name,
            ip=ip_text(endpoint.ips[0]),
            mac=endpoint.mac.hex(),
            ifname=attachment.ifname,
            gateway=attachment.gateway,
            aliases=list(endpoint.aliases),
            labels=[list(pair) for pair in endpoint.labels],
            gateway_priority=attachment.gateway_priority,
        )


def load_ended(state: StateDatabase) -> dict[str, EndedEndpoint]:
    """Return the endpoints that wait for their containers, by key."""
    return {key: EndedEndpoint(**value) for key, value in state.all("ended").items()}


def put_ended(state: StateDatabase, ended: EndedEndpoint) -> None:
    """Remember one; call inside a transaction."""
    state.put("ended", ended.key, asdict(ended))


def drop_ended(state: StateDatabase, ended: EndedEndpoint) -> None:
    """Forget one; call inside a transaction."""
    state.delete("ended", ended.key)


def load_cluster(state: StateDatabase) -> StoredCluster | None:
    """Return the cluster this node is a member of, or None."""
    value = state.get("cluster", "")
    if value is None:
        return None
    if "anchor" not in value or "secret" in value:
        raise OverlayError(
            f"{state.path} is of a cluster without an authority, or without a keyring",
            why="an earlier development version of overlayd made it",
            hint="Start anew: sudo overlayd reset, then sudo overlayd join",
        )
    return StoredCluster(**value)


def put_cluster(state: StateDatabase, cluster: StoredCluster) -> None:
    """Store the cluster; call inside a transaction."""
    state.put("cluster", "", asdict(cluster))


def load_authority(state: StateDatabase) -> Authority | None:
    """Return the cluster's authority, if this host holds it."""
    value = state.get("authority", "")
    return None if value is None else Authority(bytes.fromhex(value))


def put_membership(
    state: StateDatabase,
    key: ClusterKey,
    *,
    authority: Authority | None = None,
    certificate: Certificate | None = None,
) -> None:
    """Store by what this node is about to be member; call inside a transaction.

    What an interrupted try to make or join another cluster has left is gone then.
    """
    for kind in ("authority", "certificate", "token"):
        state.delete(kind)
    put_keyring(state, [key], key.id)
    if authority is not None:
        put_authority(state, authority)
    if certificate is not None:
        put_certificate(state, certificate)


def load_keyring(state: StateDatabase) -> Keyring:
    """Return the cluster's keys; a member has at least one."""
    value = state.get("keyring", "")
    assert value is not None, "no host is member without a key"
    keys = [
        ClusterKey(one["generation"], one["made_s"], *(bytes.fromhex(one[k]) for k in _KEY_BYTES))
        for one in value["keys"]
    ]
    return Keyring(keys, KeyId(*value["sealing"]))


def put_keyring(state: StateDatabase, keys: Iterable[ClusterKey], sealing: KeyId) -> None:
    """Store the cluster's keys and which one seals; call inside a transaction."""
    shown = [
        {"generation": key.generation, "made_s": key.made_s}
        | {name: getattr(key, name).hex() for name in _KEY_BYTES}
        for key in keys
    ]
    state.put("keyring", "", {"keys": shown, "sealing": list(sealing)})


def put_authority(state: StateDatabase, authority: Authority) -> None:
    """Store the authority; call inside a transaction."""
    state.put("authority", "", authority.to_bytes().hex())


def load_certificate(state: StateDatabase) -> Certificate | None:
    """Return this node's certificate, if it has one."""
    value = state.get("certificate", "")
    if value is None:
        return None
    return Certificate(
        Ip(bytes.fromhex(value["address"])),
        value["not_before_s"],
        value["not_after_s"],
        bytes.fromhex(value["signature"]),
    )


def put_certificate(state: StateDatabase, certificate: Certificate) -> None:
    """Store this node's certificate; call inside a transaction."""
    value = {
        "address": certificate.address.hex(),
        "not_before_s": certificate.not_before_s,
        "not_after_s": certificate.not_after_s,
        "signature": certificate.signature.hex(),
    }
    state.put("certificate", "", value)


def load_identity(state: StateDatabase) -> Identity:
    """Return this node's identity, made and stored where there is none."""
    value = state.get("identity", "")
    if value is not None:
        return Identity.from_bytes(bytes.fromhex(value))
    identity = Identity.generate(os.urandom)
    with state.transaction():
        put_identity(state, identity)
    return identity


def put_identity(state: StateDatabase, identity: Identity) -> None:
    """Store this node's identity; call inside a transaction."""
    state.put("identity", "", identity.to_bytes().hex())


def load_attachments(state: StateDatabase) -> dict[bytes, Attachment]:
    """Return the local attachments by endpoint id."""
    return {bytes.fromhex(key): _attachment(value) for key, value in state.all("endpoint").items()}


def put_attachment(state: StateDatabase, attachment: Attachment) -> None:
    """Store an attachment; call inside a transaction."""
    state.put("endpoint", attachment.endpoint_id, asdict(attachment))


def drop_attachment(state: StateDatabase, endpoint_id: bytes) -> None:
    """Forget an attachment; call inside a transaction."""
    state.delete("endpoint", endpoint_id.hex())


def _attachment(value: dict[str, Any]) -> Attachment:
    device, inode = value["netns_identity"]
    return Attachment(**{"plugged": True, **value, "netns_identity": (device, inode)})


def load_exposures(state: StateDatabase) -> dict[Vni, bool]:
    """Return which networks were exposed here, or hidden, by hand."""
    return {Vni(int(key)): bool(value) for key, value in state.all("exposure").items()}


def put_exposure(state: StateDatabase, vni: Vni, *, exposed: bool) -> None:
    """Store that a network was exposed or hidden by hand; call inside a transaction."""
    state.put("exposure", str(vni), exposed)


def drop_exposure(state: StateDatabase, vni: Vni) -> None:
    """Forget what was said of a network; call inside a transaction."""
    state.delete("exposure", str(vni))


def load_publications(state: StateDatabase) -> list[PublishedPort]:
    """Return the ports that this host publishes."""
    return [
        PublishedPort(
            value["protocol"],
            Ip(bytes.fromhex(value["host_ip"])),
            value["host_port"],
            Vni(value["vni"]),
            value["name"],
            value["port"],
        )
        for value in state.all("published").values()
    ]


def put_publication(state: StateDatabase, publication: PublishedPort) -> None:
    """Store a published port; call inside a transaction."""
    value = publication._asdict() | {"host_ip": publication.host_ip.hex()}
    state.put("published", _publication_key(publication), value)


def drop_publication(state: StateDatabase, publication: PublishedPort) -> None:
    """Forget a published port; call inside a transaction."""
    state.delete("published", _publication_key(publication))


def _publication_key(publication: PublishedPort) -> str:
    return f"{publication.host_binding}/{publication.protocol}"


def next_epoch(state: StateDatabase) -> int:
    """Advance and return the start counter; durable before it is used."""
    epoch = int(state.get("epoch", "") or 0) + 1
    with state.transaction():
        state.put("epoch", "", epoch)
    return epoch
