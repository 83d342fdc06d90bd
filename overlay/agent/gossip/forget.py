"""`overlayd forget`: declare a node permanently gone.

Owns: when that is refused, so that no host with running containers is removed by mistake. Does not:
act on the declaration (`core.ipam.reclaim`, `core.keys`).
"""

from __future__ import annotations

from overlay import limits
from overlay.agent.gossip.authority.holders import AuthorityHolders
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode
from overlay.errors import ConflictError, NotFoundError
from overlay.model import NodeId


class ForgetService:
    """Declares nodes permanently gone, and so bans their identities."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        holders: AuthorityHolders,
        event_log: EventLog,
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._holders = holders
        self._event_log = event_log

    def forget(
        self, name: str, *, powered_off: bool, ban: bool = False, force: bool = False
    ) -> NodeId:
        """Declare a node permanently gone; nothing is done if that is declared already.

        Raises ConflictError for a live node, unless `ban` is set. That requires the authority,
        because no member may exclude another live one. Raises ConflictError as well for the only
        holder of the authority, unless `force` is set.
        """
        node_id = self._find(name)
        if self._gossip.node.is_forgotten(node_id):
            return node_id
        if node_id == self._gossip.node_id:
            raise ConflictError("a node cannot forget itself", hint="Use: sudo overlayd leave")
        if ban:
            self._holders.require_authority()
        else:
            self._require_gone(node_id, name)
            if not powered_off:
                self._require_majority(name)
        self._require_room(name)
        if not force:
            self._holders.require_not_last(node_id, name)
        authority = self._gossip.authority
        record = ForgottenNode(node_id) if authority is None else authority.sign_forgotten(node_id)
        # Also on an old state: nobody else can end the wait for a node that is gone.
        self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, [record], on_old_state=True))
        self._event_log.record("forget", f"{name} is forgotten", peer=name)
        return node_id

    def _find(self, name: str) -> NodeId:
        """Return the node with a name or id; a forgotten one only if no other has it."""
        try:
            return self._directory.node(name)
        except NotFoundError:
            forgotten = self._directory.forgotten_node(name)
            if forgotten is None:
                raise
            return forgotten

    def _require_room(self, name: str) -> None:
        values = self._gossip.node.store.values_of
        count = sum(1 for _ in values(self._gossip.node_id, CLUSTER_SCOPE, "forgotten"))
        if count >= limits.FORGOTTEN_PER_NODE_MAX:
            raise ConflictError(
                f"this host has declared {count} nodes gone: the limit",
                why="every member keeps a statement about each",
                hint=f"On another host: sudo overlayd forget {name}",
            )

    def _require_gone(self, node_id: NodeId, name: str) -> None:
        state = self._directory.node_state(node_id)
        if state in (MemberState.ALIVE, MemberState.SUSPECT):
            raise ConflictError(
                f"{name} is {state.name.lower()}",
                why="its containers may be running",
                hint=f"On {name}: sudo overlayd leave; to exclude it although it runs: "
                f"sudo overlayd forget --ban {name}",
            )

    def _require_majority(self, name: str) -> None:
        members = self._gossip.node.membership
        total, live = 1 + len(members.members()), 1 + len(members.live())
        if 2 * live < total:
            raise ConflictError(
                f"only {live} of {total} members are reachable",
                why="the others may be running on the far side of a partition",
                hint="If the host is really off: overlayd forget --powered-off " + name,
            )
