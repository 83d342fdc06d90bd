"""When this node's WireGuard key is replaced, step by step, by the keys that members publish.

All members move together, from the devices of one slot to those of the other, because the two ends
of a tunnel must be of one slot. Each acts on its own, from what the others publish:

1. *Begin*: publish a next key in the other slot. A member that sees one does the same.
2. Each pair moves its packets when a handshake between the next keys has succeeded: both devices
   accept packets meanwhile, so none is lost, whichever side is first.
3. *Retire*: withdraw the former key when all packets leave by the next one, which is in use then.
4. *Forget*: delete the former key and its device when every member has withdrawn its own.

A member whose agent is down holds this up, and its packets use the former keys. Nothing is ever
sent in clear, and no step waits for a clock.

Owns: these conditions. Does not: make keys or devices (`agent.encryption`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from overlay.core.encryption.key_record import WireguardKey
from overlay.model import NodeId


class OwnSlots(NamedTuple):
    """The slots of this node's keys; in one of them at most is a second key."""

    current: int
    next: int | None = None
    retired: int | None = None


class MemberKeys(NamedTuple):
    """The keys of another member, the one in use first, and whether packets pass to it."""

    node_id: NodeId
    keys: tuple[WireguardKey, ...]
    shares_network: bool = True  # both hosts have a sandbox of an encrypted network
    answers_next: bool = False  # there was a handshake by this node's newer device


class ReplacementStep(enum.Enum):
    """The next step of this node."""

    NONE = "none"
    ADOPT = "adopt"  # take up the slot of most members: this node has just joined, or was away
    BEGIN = "begin"
    RETIRE = "retire"
    FORGET = "forget"


class WaitReason(enum.Enum):
    """Why a rotation waits for a member."""

    NO_NEXT_KEY = "it has published no next key"
    NO_HANDSHAKE = "it does not answer by its next key"
    STILL_FORMER = "it has not withdrawn its former key"


def next_step(own: OwnSlots, members: Sequence[MemberKeys], *, due: bool) -> ReplacementStep:
    """Return the next step of this node; `due` begins a rotation that nobody else has begun."""
    if own.retired is not None:
        return (
            ReplacementStep.NONE
            if any(True for _ in waits(own, members))
            else ReplacementStep.FORGET
        )
    if own.next is not None:
        return (
            ReplacementStep.NONE
            if any(True for _ in waits(own, members))
            else ReplacementStep.RETIRE
        )
    if _adopts(own.current, members):
        return ReplacementStep.ADOPT
    others = (each.keys for each in members)
    if due or any(len(keys) > 1 and keys[0].slot == own.current for keys in others):
        return ReplacementStep.BEGIN
    return ReplacementStep.NONE


def other_slot(slot: int) -> int:
    """Return the other slot."""
    return 1 - slot


def waits(own: OwnSlots, members: Iterable[MemberKeys]) -> Iterator[tuple[NodeId, WaitReason]]:
    """Yield the members that a rotation waits for, each with the reason."""
    for member in members:
        slots = [key.slot for key in member.keys]
        if own.retired is not None:
            # In the order of a next rotation, the retired slot comes second.
            if slots[:1] == [own.retired]:
                yield member.node_id, WaitReason.STILL_FORMER
        elif own.next is not None and slots:
            if own.next not in slots:
                yield member.node_id, WaitReason.NO_NEXT_KEY
            elif member.shares_network and slot_used(own, member) != own.next:
                yield member.node_id, WaitReason.NO_HANDSHAKE


def slot_used(own: OwnSlots, member: MemberKeys) -> int:
    """Return the slot of the device by which packets to a member leave."""
    former, newer = slot_order(own)
    slots = {key.slot for key in member.keys}
    if newer == former or newer not in slots:
        return former
    # This node's former key is no longer published, or the member's: nothing answers there.
    if own.retired is not None or former not in slots:
        return newer
    return newer if member.answers_next or not member.shares_network else former


def slot_order(own: OwnSlots) -> tuple[int, int]:
    """Return the slots of this node's former and newer key; equal where there is one."""
    if own.retired is not None:
        return own.retired, own.current
    return own.current, own.current if own.next is None else own.next


def _adopts(current: int, members: Sequence[MemberKeys]) -> bool:
    """Return whether this node should replace its key at once: it shares no slot with most."""
    slots = [{key.slot for key in member.keys} for member in members if member.keys]
    here = 1 + sum(current in each for each in slots)
    elsewhere = sum(current not in each for each in slots)
    # Of two halves, those of the second slot yield.
    return elsewhere > here or (elsewhere == here and current == 1)
