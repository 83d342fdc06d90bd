"""Share the authority: several members hold it, so that no single host is needed.

Owns: giving the key to members that `core.keys.holder_choice` chooses or an operator names,
receiving it, and what `status` says about the number of holders. Does not: know HTTP, or use the
authority.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator

from overlay import limits
from overlay.agent.gossip.authority.holders import LOST_HINT, AuthorityHolders
from overlay.agent.gossip.service import GossipService
from overlay.agent.gossip.silent_members import few_heard
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.events import AuthorityMessage
from overlay.core.keys.holder_choice import HolderChoice
from overlay.core.protocol.messages import AuthorityHandover, MemberState
from overlay.errors import ConflictError, TimedOutError
from overlay.model import NodeId

_HANDOVER_INTERVAL_S = 0.5
_POLL_S = 0.05


class AuthoritySharing(Controller):
    """This member's part in keeping several holders of the authority."""

    name = "authority sharing"
    problem = "this host cannot say that it holds the cluster's authority"
    settle_s = 0.2  # of hosts that join at the same time, the first become holders
    event_kind = "authority"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        holders: AuthorityHolders,
        event_log: EventLog,
        wanted: int = limits.AUTHORITY_HOLDERS_DEFAULT,
    ) -> None:
        super().__init__(event_log)
        self.choice = HolderChoice(gossip.node, wanted)
        self._gossip = gossip
        self._directory = directory
        self._holders = holders
        self._again_s = limits.HOLDER_CHECK_INTERVAL_S
        self._single_since: float | None = None

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Wait until this node may write."""
        await self._gossip.until_may_write()
        yield

    async def reconcile(self) -> None:
        """Publish that this host holds the authority, if so, and give it to members that lack it.

        Raises OverlayError where the disk rejects the record.
        """
        self._holders.declare()
        now = self._gossip.transport.now()
        self._note_single(now)
        if self._gossip.authority is None:
            self._again_s = limits.HOLDER_CHECK_INTERVAL_S
            return
        step = self.choice.next_handover(self._holders.others(), now)
        self._again_s = step.again_s
        self._send(step.to)

    def next_interval_s(self) -> float:
        """Return the time until members may have to be given the authority, or given it again."""
        return self._again_s

    def holders_changed(self) -> None:
        """Check soon, as a holder's record has changed, or a node was forgotten."""
        self._holders.records_changed()
        self.trigger()

    def _send(self, to: Iterable[NodeId]) -> None:
        authority = self._gossip.authority
        assert authority is not None
        for node_id in to:
            self._gossip.node.send_to(node_id, AuthorityHandover(authority.to_bytes()))
        self._gossip.transport.flush()

    # --- what status says ---------------------------------------------------------------

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and that the authority is lost, out of reach or on one host alone."""
        yield from super().faults()
        if not self._gossip.node.caught_up and self._gossip.has_alive_peers():
            return  # a newcomer does not know the holders yet
        if not self._holders.count():
            yield Fault(
                "no host holds the cluster's authority any longer: no host can be admitted, and "
                "neither certificates nor the cluster key are renewed",
                LOST_HINT,
                "error",
            )
        elif self._gossip.authority is None and not self._holders.live():
            if few_heard(self._gossip.node.membership) is not None:
                return  # this host is probably cut off, not the holders down
            yield Fault(
                "no host that holds the cluster's authority answers: "
                f"{self._holders.down_text()}; meanwhile no host can be admitted",
                self._holders.down_hint(),
            )
        elif self._is_single_for_long():
            (name,) = self._holders.names()
            yield Fault(
                f"only {name} holds the cluster's authority: if it is lost, no host can be "
                "admitted again",
                f"On {name}: sudo overlayd promote NODE, or keep a copy: sudo overlayd authority "
                "export FILE. To have it on one host alone: authority_holders = 1 in the "
                "configuration of each host",
            )

    def _note_single(self, now: float) -> None:
        members = self._gossip.node.membership.members()
        is_alone = all(member.state is MemberState.LEFT for member in members)
        is_single = self.choice.wanted > 1 and self._holders.count() == 1 and not is_alone
        if not is_single:
            self._single_since = None
        elif self._single_since is None:
            self._single_since = now

    def _is_single_for_long(self) -> bool:
        since = self._single_since
        if since is None or self._holders.count() != 1:
            return False
        return self._gossip.transport.now() - since >= limits.SINGLE_HOLDER_SHOWN_S

    # --- receiving it -------------------------------------------------------------------

    def handle_message(self, event: AuthorityMessage) -> None:
        """Accept the authority's key from a member."""
        match event.message:
            case AuthorityHandover(key=key):
                # Later, as the node is in the middle of a call.
                asyncio.get_running_loop().call_soon(self._accept, event.sender, key)
            case _:
                pass

    def _accept(self, sender: NodeId, key: bytes) -> None:
        with self.outcome():  # the sender sends it again
            name = self._directory.node_name(sender)
            self.hold(key, f"{name} made this host a holder of the authority")

    def hold(self, key: bytes, reason: str) -> bool:
        """Hold the authority from now on; return False if `key` is not the cluster's.

        `reason` is the event's text. Raises OverlayError if the disk rejects it.
        """
        held = self._gossip.authority is not None
        if not self._gossip.hold_authority(key):
            return False
        if not held:
            self._gossip.state.keep_backup()  # a damaged state must not cost the cluster its key
            self._event_log.record("promote", reason)
        self.trigger()
        if self._gossip.node.may_write(self._gossip.transport.now()):
            self._holders.declare()
        return True

    # --- giving it on request -----------------------------------------------------------

    async def promote(self, name: str) -> bool:
        """Send the authority to a member; return False if it already holds it.

        Raises ConflictError where it is not held here or the member is not alive, TimedOutError
        if the member does not confirm by a record of its own.
        """
        self._holders.require_authority()
        node_id = self._directory.node(name)
        if self._holders.is_holder(node_id):
            return False
        if self._directory.node_state(node_id) is not MemberState.ALIVE:
            raise ConflictError(
                f"{name} is not alive", hint="'overlayd members' shows the members that are"
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.PROMOTE_TIMEOUT_S
        sent_at = 0.0
        while not self._holders.is_holder(node_id):
            if loop.time() >= deadline:
                raise TimedOutError(
                    f"{name} has not confirmed within {limits.PROMOTE_TIMEOUT_S:.0f} s",
                    hint="It may hold the authority nevertheless; run this again",
                )
            if loop.time() - sent_at >= _HANDOVER_INTERVAL_S:
                sent_at = loop.time()
                self._send([node_id])
            await asyncio.sleep(_POLL_S)
        self._event_log.record("promote", f"{name} holds the authority", peer=name)
        return True
