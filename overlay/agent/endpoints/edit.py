"""Change the name, aliases and labels of attached endpoints in place.

Owns: what an edit makes of an endpoint, and its steps: each record is checked, then all are
written. Does not: change what the kernel holds; rates and priorities are `update`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from overlay import limits
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.update import FieldChange
from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.core.dataplane.port_security import allowed_macs
from overlay.core.protocol.records import Scope
from overlay.errors import ConflictError, UsageError
from overlay.model import (
    SHARED_NAME_LABEL,
    Endpoint,
    Mac,
    Network,
    Vni,
    ip_text,
    mac_text,
    shares_name,
)
from overlay.signals import AsyncSignal

Edited = tuple[Network, Endpoint, str, tuple[FieldChange, ...]]  # with its interface's name


@dataclass(frozen=True, slots=True)
class EndpointEdit:
    """The changes of an endpoint; what it does not name stays as it is."""

    name: str | None = None
    add_aliases: tuple[str, ...] = ()
    remove_aliases: tuple[str, ...] = ()
    add_labels: tuple[tuple[str, str], ...] = ()
    remove_labels: tuple[str, ...] = ()
    shared_name: bool | None = None

    def applied(self, endpoint: Endpoint) -> Endpoint:
        """Return the changed endpoint; raises UsageError for too many aliases or labels."""
        gone = {alias.lower() for alias in self.remove_aliases}
        kept = {alias.lower(): alias for alias in endpoint.aliases if alias.lower() not in gone}
        aliases = kept | {alias.lower(): alias for alias in self.add_aliases}
        labels = dict(endpoint.labels) | dict(self.add_labels)
        labels = {key: value for key, value in labels.items() if key not in self.remove_labels}
        if self.shared_name is not None:
            labels.pop(SHARED_NAME_LABEL[0], None)
            labels |= [SHARED_NAME_LABEL] if self.shared_name else []
        _require_at_most(limits.ALIAS_COUNT_MAX, aliases, "aliases")
        _require_at_most(limits.LABEL_COUNT_MAX, labels, "labels")
        return replace(
            endpoint,
            name=self.name or endpoint.name,
            aliases=tuple(aliases.values()),
            labels=tuple(sorted(labels.items())),
        )


@dataclass(frozen=True, slots=True)
class EditSpec:
    """A container whose endpoints change; those on all its networks if none is named."""

    target: str
    edit: EndpointEdit
    networks: tuple[str, ...] = ()


def _require_at_most(limit: int, wanted: dict[str, str], what: str) -> None:
    if len(wanted) > limit:
        raise UsageError(
            f"the endpoint would have {len(wanted)} {what}; {limit} is the limit",
            hint=f"Remove some of its {what} in the same command",
            field=f"add_{what}",
        )


class EndpointEditor:
    """Edits endpoints of this node.

    Signal `endpoint_renamed`: an endpoint of a network has another name; with both names. The edit
    returns once the handlers have.
    """

    def __init__(self, context: EndpointContext) -> None:
        self._gossip = context.node.gossip
        self._directory = context.node.directory
        self._event_log = context.node.event_log
        self._attachments = context.attachments
        self.endpoint_renamed: AsyncSignal[[Vni, str, str]] = AsyncSignal()

    async def edit(
        self, identity: tuple[int, int], networks: Sequence[Network], change: EndpointEdit
    ) -> list[Edited]:
        """Edit a container's endpoints on the networks (none given: on all).

        Raises ConflictError if a name is taken, and then changes none of them.
        """
        wanted = {network.vni for network in networks}
        async with self._attachments.alone_with(identity):
            found: list[tuple[Network, Endpoint, Endpoint, str]] = []
            for attachment in self._attachments.of_target(identity):
                network = self._directory.network_by_vni(attachment.vni)
                before = self._directory.endpoint_of(attachment)
                if before is None or network is None or (wanted and network.vni not in wanted):
                    continue
                after = change.applied(before)
                name = WantedName.of(after)
                if name != WantedName.of(before):
                    require_free(self._directory, network, name)
                found.append((network, before, after, attachment.ifname))
            edited = [self._write(*each) for each in found]
        for network, before, after, _ in found:
            if after.name != before.name:
                await self.endpoint_renamed.emit(network.vni, before.name, after.name)
        return edited

    def _write(self, network: Network, before: Endpoint, after: Endpoint, ifname: str) -> Edited:
        changes = tuple(_changes(before, after))
        if changes:
            self._gossip.publish(self._gossip.commit(Scope(network.vni), [after]))
            self._event_log.record(
                "attach",
                f"{ip_text(after.ips[0])} changed: " + ", ".join(map(str, changes)),
                network=network.name,
                endpoint=after.name,
            )
        return network, after, ifname, changes


def _changes(before: Endpoint, after: Endpoint) -> Iterable[FieldChange]:
    pairs = (
        ("name", before.name, after.name),
        ("aliases", " ".join(before.aliases), " ".join(after.aliases)),
        ("labels", _labels_text(before), _labels_text(after)),
    )
    return (FieldChange(field, had, has) for field, had, has in pairs if had != has)


def _labels_text(endpoint: Endpoint) -> str:
    return " ".join(f"{key}={value}" for key, value in endpoint.labels)


class WantedName(NamedTuple):
    """The name that an endpoint needs, which must be free, and the MACs of a new one."""

    name: str
    is_shared: bool
    mac: Mac | None = None
    allowed_macs: tuple[Mac, ...] = ()
    endpoint_id: bytes = b""

    @classmethod
    def of(cls, endpoint: Endpoint) -> WantedName:
        """Return the name of an endpoint."""
        return cls(endpoint.name, shares_name(endpoint), endpoint_id=endpoint.endpoint_id)


def require_free(directory: Directory, network: Network, wanted: WantedName) -> None:
    """Raise ConflictError if another endpoint, or a service, of a network has the name.

    Unless all endpoints with this name share it. Likewise if one has one of the MACs.
    """
    name = wanted.name
    if directory.view.services.has(network.vni, name):
        raise ConflictError(
            f"the name {name!r} is taken on network {network.name}",
            why="a service has it",
            hint="Choose another name with --name; with the service's name as --alias the "
            "container can be one of its backends",
        )
    has_macs = wanted.mac is not None or wanted.allowed_macs
    if not has_macs and not directory.has_endpoint_name(network.vni, name):
        return  # the usual case, also beside 50,000 others
    for origin, other in directory.all_endpoints(network.vni):
        if other.endpoint_id == wanted.endpoint_id:
            continue
        is_shared = wanted.is_shared and shares_name(other)
        if other.name.lower() == name.lower() and not is_shared:
            raise _taken_name_error(directory, network, PlacedEndpoint(origin, other), wanted)
        if wanted.mac == other.mac or other.mac in wanted.allowed_macs:
            raise ConflictError(
                f"the MAC {mac_text(other.mac)} is taken on network {network.name}",
                why=f"{other.name} on {directory.node_name(origin)} has it",
                hint="Choose another MAC, or leave the choice to overlayd",
            )
        if wanted.mac is not None and wanted.mac in allowed_macs(other):
            raise ConflictError(
                f"the MAC {mac_text(wanted.mac)} is taken on network {network.name}",
                why=f"{other.name} on {directory.node_name(origin)} may use it beside its own",
                hint="Choose another MAC, or leave the choice to overlayd",
            )


def _taken_name_error(
    directory: Directory, network: Network, holder: PlacedEndpoint, wanted: WantedName
) -> ConflictError:
    where = f"{ip_text(holder.endpoint.ips[0])} on {directory.node_name(holder.origin)}"
    if shares_name(holder.endpoint):
        return ConflictError(
            f"the name {wanted.name!r} is taken on network {network.name}",
            why=f"{where} has it, and shares it only with those that share it, too",
            hint="Share it: --shared-name; or choose another name with --name",
        )
    if wanted.is_shared:
        return ConflictError(
            f"the name {wanted.name!r} is not shared on network {network.name}",
            why=f"{where} has it for itself",
            hint=f"On {directory.node_name(holder.origin)}: overlayd endpoint set "
            f"{holder.endpoint.name} --shared-name; or choose another name with --name",
        )
    return ConflictError(
        f"the name {wanted.name!r} is taken on network {network.name}",
        why=f"{where} has it",
        hint="Choose another name; 'attach' and 'endpoint set' take one with --name, and "
        "--shared-name on each of the containers that should have it",
    )
