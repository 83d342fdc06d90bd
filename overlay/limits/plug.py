"""Bounds on plugged interfaces, and the times by which one of several hosts is chosen."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final

PLUGS_PER_NETWORK_MAX: Final = 8  # of a host: interfaces that lead to different wires
PLUG_ADDRESSES_MAX: Final = 1024  # of machines outside that a host tells the others of
PLUG_MACS_MAX: Final = 4096  # outside at a time; frames of further ones are dropped
PLUG_PROBERS_MAX: Final = 64  # other plugs heard on the segment
PLUG_SEEN_S: Final = 300.0  # since a machine was last heard of: its address is free again
PLUG_POLL_S: Final = 0.5  # from a check of the plugs, and from a probe, to the next
PLUG_HEARD_S: Final = 3.0  # a plug that was heard so long ago counts
PLUG_LISTEN_S: Final = 1.2  # for probes of others, before a port opens
PLUG_LEASE_S: Final = 5.0  # the kernel closes a port that no agent has renewed for so long
PLUG_TERM_MAX: Final = 2**48  # one activation a second takes 9 million years
PLUG_TAKEOVER_S: Final = 6.5  # from the death of an active plug's agent until another opens
PLUG_PUBLISH_S: Final = 1.0  # from one publication of what is outside to the next
PLUG_BUCKETS: Final = 64  # records that a host spreads them over, so that few change at a time
PLUG_BUCKET_SIZE_MAX: Final = 450  # bytes of addresses in a record
PLUG_ACTIVATION_WAIT_S: Final = 5.0  # how long the command waits for the port to open or not
PLUG_SWEEP_NEXT: Final = 32  # addresses next in line that are asked for, of each owner and subnet
PLUG_SWEEP_ADDRESSES_MAX: Final = 2048  # in all, of a network
PLUG_SWEEP_BATCH: Final = 16  # in one check of a plug
PLUG_SWEEP_INTERVAL_S: Final = 60.0  # from one question for an address to the next
PLUG_SWEEP_PAUSE_S: Final = 2.0  # from one choice of addresses to the next, whatever changes
PLUG_REMOVAL_WAIT_S: Final = 10.0  # how long `apply` waits for a host to give an interface back
assert PLUG_LISTEN_S > 2 * PLUG_POLL_S
# All of them are asked for, also where one answer is lost, before what answered is free again.
assert (
    PLUG_SWEEP_ADDRESSES_MAX + PLUG_ADDRESSES_MAX < PLUG_SEEN_S / 2 / PLUG_POLL_S * PLUG_SWEEP_BATCH
)
assert 2 * PLUG_SWEEP_INTERVAL_S < PLUG_SEEN_S
assert PLUG_LEASE_S < PLUG_TAKEOVER_S
