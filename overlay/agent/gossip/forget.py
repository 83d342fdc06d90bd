"""The verb forget: a node declared gone for ever.

Owns: when that is refused, so that no host with running containers is given up by mistake. Must not
know: what follows from it (`core.ipam.reclaim`, the keys' duty).
"""

from __future__ import annotations

from overlay.agent.gossip.admission import Admissions
from overlay.agent.gossip.service import Member
from overlay.agent.process.event_log import Journal
from overlay.agent.records.directory import Directory
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Forgotten
from overlay.errors import ConflictError
from overlay.model import NodeId


class Forgetting:
    """Declares nodes gone, their identities barred."""

    def __init__(
        self, member: Member, directory: Directory, admissions: Admissions, journal: Journal
    ) -> None:
        self._member = member
        self._directory = directory
        self._admissions = admissions
        self._journal = journal

    def forget(self, name: str, *, powered_off: bool, bar: bool = False) -> NodeId:
        """Declare a node gone for ever.

        Raises ConflictError for one that is alive, unless it is to be barred all the same: that
        takes the authority, for no member may shut out another that lives.
        """
        node_id = self._directory.node(name)
        if node_id == self._member.node_id:
            raise ConflictError("a node cannot forget itself", hint="Use: sudo overlayd leave")
        if bar:
            self._admissions.require_authority()
        else:
            self._require_gone(node_id, name)
            if not powered_off:
                self._require_majority(name)
        authority = self._member.authority
        record = Forgotten(node_id) if authority is None else authority.forget(node_id)
        self._member.publish(self._member.commit(CLUSTER_SCOPE, [record]))
        self._journal.record("forget", f"{name} is forgotten", peer=name)
        return node_id

    def _require_gone(self, node_id: NodeId, name: str) -> None:
        state = self._directory.node_state(node_id)
        if state in (MemberState.ALIVE, MemberState.SUSPECT):
            raise ConflictError(
                f"{name} is {state.name.lower()}",
                why="its containers may be running",
                hint=f"On {name}: sudo overlayd leave; to shut it out although it runs: "
                f"sudo overlayd forget --bar {name}",
            )

    def _require_majority(self, name: str) -> None:
        members = self._member.node.membership
        total, live = 1 + len(members.members()), 1 + len(members.live())
        if 2 * live < total:
            raise ConflictError(
                f"only {live} of {total} members are in reach",
                why="the others may be running on the far side of a partition",
                hint="If the host is really off: overlayd forget --powered-off " + name,
            )
