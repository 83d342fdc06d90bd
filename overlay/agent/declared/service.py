"""Create, change and remove declared objects in this node's own log.

Owns: when that is refused, and deleting this node's records that others override.
Does not: know what the objects mean, or which record is in force (`core.declared`).
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.declared.software import Version, require_software
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.core.declared.cleaner import DeclaredCleaner
from overlay.core.declared.host_objects import DeclaredPlug
from overlay.core.declared.kinds import EVPN_KIND, PLUG_KIND, POLICY_KIND, ROUTER_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.evpn.cluster_settings import EVPN_SOFTWARE
from overlay.core.plug.records import PLUG_SOFTWARE
from overlay.core.policy.policy import POLICY_SOFTWARE
from overlay.core.protocol.records import CLUSTER_SCOPE, DeclaredObject
from overlay.core.router.router import ROUTER_SOFTWARE
from overlay.errors import ConflictError

_FIRST_SOFTWARE: Version = (0, 2, 0)
_REFUSES = "would accept nothing more that this host writes"
IGNORES = "would not enforce it: its containers' connections would stay as they are"
_ENFORCED: dict[int, tuple[Version, str]] = {
    POLICY_KIND: (POLICY_SOFTWARE, IGNORES),
    DeclaredPlug.kind: (PLUG_SOFTWARE, "would not plug it"),
    PLUG_KIND: (PLUG_SOFTWARE, "would give out addresses that machines outside have"),
    EVPN_KIND: (EVPN_SOFTWARE, "would not follow it, and not speak BGP EVPN"),
    ROUTER_KIND: (ROUTER_SOFTWARE, "would not route: its containers would reach nothing by it"),
}
"""The first version that does what objects of a kind say, and what older ones do instead."""
_CLEAN_INTERVAL_S = 30.0
_SETTLE_S = 1.0


class DeclaredService(Controller):
    """The declared objects of the cluster, as this node may write them."""

    name = "declared objects"
    problem = "records of declared objects cannot be deleted"
    interval_s = _CLEAN_INTERVAL_S
    settle_s = _SETTLE_S

    def __init__(self, context: NodeContext, objects: DeclaredObjects) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self.objects = objects
        self._cleaner = DeclaredCleaner(self.objects)

    def put(self, kind: int, name: str, body: bytes) -> None:
        """Create or change an object; nothing is written if it is so already.

        Raises ConflictError where the cluster or this node's log cannot take it.
        """
        assert 0 < len(body) <= limits.DECLARED_BODY_SIZE_MAX, "the caller bounds a body"
        found = self.objects.in_force(kind, name)
        if found is None or (found.value.body, found.value.name) != (body, name):
            self._write(kind, name, body)

    def remove(self, kind: int, name: str) -> None:
        """Remove an object; nothing is written if there is none."""
        found = self.objects.in_force(kind, name)
        if found is not None and found.value.body:
            self._write(kind, found.value.name, b"")

    def _write(self, kind: int, name: str, body: bytes) -> None:
        self._require_software(kind, name, is_removal=not body)
        version = self.objects.next_version(kind, name)
        if version is None:
            placed = self.objects.in_force(kind, name)
            assert placed is not None, "an object without a record has a next version"
            writer = self._directory.node_name(placed.origin)
            raise ConflictError(
                f"{name} cannot be changed",
                why=f"{writer} has written it with the highest version that there is, as no "
                "honest agent does",
                hint=f"If {writer} is not to be trusted: overlayd forget --ban {writer}",
            )
        value = DeclaredObject(kind, name, version, body)
        self._require_room(value)
        self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, [value]))
        self.trigger()

    def _require_software(self, kind: int, name: str, *, is_removal: bool) -> None:
        """Raise ConflictError while a live member refuses or ignores such records."""
        require_software(self._gossip.node, _FIRST_SOFTWARE, name, _REFUSES)
        if kind in _ENFORCED and not is_removal:
            first, consequence = _ENFORCED[kind]
            require_software(self._gossip.node, first, name, consequence)

    def _require_room(self, value: DeclaredObject) -> None:
        found = self.objects.in_force(value.kind, value.name)
        is_own = found is not None and found.origin == self._gossip.node_id
        if not is_own and self.objects.own_count() >= limits.DECLARED_PER_NODE_MAX:
            raise ConflictError(
                f"{value.name} cannot be written on this host",
                why=f"it has written {limits.DECLARED_PER_NODE_MAX} such objects: the limit",
                hint="Run the command on another host, or remove objects here. Removed ones count "
                "until all members have answered for a minute",
            )

    async def reconcile(self) -> None:
        """Delete this node's records that say nothing new."""
        gossip = self._gossip
        if not gossip.may_write or not gossip.node.caught_up:
            return
        states = [member.state for member in gossip.node.membership.members()]
        keys = self._cleaner.due(states, gossip.transport.now())
        if keys:
            gossip.publish(gossip.commit(CLUSTER_SCOPE, deletes=keys))
