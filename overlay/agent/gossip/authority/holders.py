"""The members that hold the cluster's authority, and the errors where one is needed.

Owns: reading and checking the holders' records, and what a person is advised to do. Does not: give
the authority to anyone (`handover`), or use it.
"""

from __future__ import annotations

from overlay.agent.gossip.service import GossipService
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, AuthorityHolderRecord, Key
from overlay.errors import ConflictError
from overlay.model import NodeId, node_text
from overlay.wire.identity.authority import Authority

HOLDER_KEY: Key = ("holder", b"")  # the key of AuthorityHolderRecord records
LOST_HINT = (
    "With an exported copy, on any member: sudo overlayd authority import FILE. Without one the "
    "cluster keeps running as it is; to admit hosts again, create a new cluster"
)
_LIVE = (MemberState.ALIVE, MemberState.SUSPECT)


class AuthorityHolders:
    """The holders of the authority, as one member's records have them."""

    def __init__(self, gossip: GossipService) -> None:
        self._gossip = gossip
        self._proven: set[NodeId] | None = None
        self._checked: dict[NodeId, AuthorityHolderRecord] = {}  # their proof was true

    def records_changed(self) -> None:
        """Read the records again before the next use."""
        self._proven = None

    def proven(self) -> set[NodeId]:
        """Return the other nodes that proved to hold it, without forgotten ones.

        Those that have left are among them: the hosts that they admitted still count.
        """
        if self._proven is None:
            node, own = self._gossip.node, self._gossip.node_id
            self._proven = {
                origin
                for origin, value in node.store.values(CLUSTER_SCOPE, "holder")
                if origin != own
                and not node.is_forgotten(origin)
                and isinstance(value, AuthorityHolderRecord)
                and self._is_true(origin, value)
            }
        return self._proven

    def _is_true(self, origin: NodeId, record: AuthorityHolderRecord) -> bool:
        """Return whether a record proves what it says; each is checked once."""
        if self._checked.get(origin) == record:
            return True
        is_true = self._gossip.anchor.verify_holder(origin, record)
        if is_true:
            self._checked[origin] = record
        return is_true

    def others(self) -> set[NodeId]:
        """Return the other members that hold the authority, alive or not."""
        return {each for each in self.proven() if not self._has_left(each)}

    def _has_left(self, node_id: NodeId) -> bool:
        """Return whether a node has left; one that came later knows it by the card alone."""
        node = self._gossip.node
        card = node.store.card(node_id)
        is_left = card is not None and card.left
        return is_left or node.membership.state_of(node_id) is MemberState.LEFT

    def live(self) -> list[NodeId]:
        """Return the other holders that are alive, in order of id."""
        state_of = self._gossip.node.membership.state_of
        return [node_id for node_id in sorted(self.others()) if state_of(node_id) in _LIVE]

    def is_holder(self, node_id: NodeId) -> bool:
        """Return whether a node holds the authority."""
        if node_id == self._gossip.node_id:
            return self._gossip.authority is not None
        return node_id in self.others()

    def count(self) -> int:
        """Return how many members hold the authority, this one included."""
        return len(self.others()) + (self._gossip.authority is not None)

    def names(self) -> list[str]:
        """Return the names of all holders."""
        own = [] if self._gossip.authority is None else [self._gossip.card.name]
        return sorted(own + [self._name(node_id) for node_id in self.others()])

    def down_text(self) -> str:
        """Return the other holders that do not answer, with their states: `vm1 (dead)`."""
        state_of = self._gossip.node.membership.state_of
        down = sorted(self.others() - set(self.live()), key=self._name)
        states = ((each, state_of(each)) for each in down)
        return ", ".join(
            f"{self._name(each)} ({'unknown' if state is None else state.name.lower()})"
            for each, state in states
        )

    def _name(self, node_id: NodeId) -> str:
        card = self._gossip.node.store.card(node_id)
        return node_text(node_id) if card is None else card.name

    # --- where it is needed -------------------------------------------------------------

    def require_authority(self) -> Authority:
        """Return the authority; raises ConflictError if this host does not hold it."""
        if self._gossip.authority is not None:
            return self._gossip.authority
        what = "this host does not hold the cluster's authority"
        live = sorted(self._name(node_id) for node_id in self.live())
        if live:
            raise ConflictError(
                what,
                why=f"{' and '.join(live)} {'hold' if len(live) > 1 else 'holds'} it",
                hint=f"Run it on {' or '.join(live)}, or make this host a holder from there: "
                f"sudo overlayd promote {self._gossip.card.name}",
            )
        if self.others():
            raise ConflictError(
                what,
                why=f"no member that holds it answers: {self.down_text()}",
                hint=self.down_hint(),
            )
        raise ConflictError(what, why="no member holds it any longer", hint=LOST_HINT)

    def down_hint(self) -> str:
        """Return what to do where holders are known, but none answers."""
        return (
            "Start one of them. If none comes back, and there is an exported copy: "
            "sudo overlayd authority import FILE"
        )

    def is_only_one(self) -> bool:
        """Return whether this host alone holds the authority, for members that stay."""
        members = self._gossip.node.membership.members()
        staying = any(member.state is not MemberState.LEFT for member in members)
        return self._gossip.authority is not None and staying and not self.live()

    def require_another(self) -> None:
        """Raise ConflictError if other members stay, and no other live one holds the authority."""
        if not self.is_only_one():
            return
        down = self.down_text()
        raise ConflictError(
            "this host is the only one that holds the cluster's authority"
            + (", except for members that are down" if down else ""),
            why="after it has left, no host can be admitted again"
            + (f", unless one of these comes back: {down}" if down else ""),
            hint="Hand it on first: sudo overlayd promote NODE. To leave anyway: "
            "sudo overlayd leave --force",
        )

    def require_not_last(self, node_id: NodeId, name: str) -> None:
        """Raise ConflictError if a node is the only holder of the authority."""
        if self._gossip.authority is None and self.others() == {node_id}:
            raise ConflictError(
                f"{name} is the only host that holds the cluster's authority",
                why="after it is forgotten, no host can be admitted again, and the cluster key is "
                "no longer replaced",
                hint=f"Start {name} again, or import an exported copy here first: sudo overlayd "
                f"authority import FILE. To forget it anyway: sudo overlayd forget --force {name}",
            )

    def declare(self) -> None:
        """Publish, once, whether this host holds the authority.

        A disk that was rolled back to before it became a holder has its record, from the peers,
        but not the key: the record is withdrawn, so that it is given the key again.
        """
        authority = self._gossip.authority
        if authority is None:
            segments = self._gossip.commit(CLUSTER_SCOPE, deletes=[HOLDER_KEY])
        else:
            proof = authority.sign_holder(self._gossip.node_id)
            segments = self._gossip.commit(CLUSTER_SCOPE, [proof])
        if segments:
            self._gossip.publish(segments)
            self.records_changed()
