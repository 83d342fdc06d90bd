"""Every timer, fan-out and multiplier of the gossip protocol, with its source.

Owns numbers and nothing else: how they are used is said where they are used. Bounds on memory
and sizes are not here but in `overlay.limits`: those protect this node, these shape a protocol
and may be changed by a test, a profile or the configuration file.

Sources: SWIM = Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process
Group Membership Protocol", DSN 2002. Lifeguard = Dadgar, Phillips, Currey, "Lifeguard: Local
Health Awareness for More Accurate Failure Detection", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """The protocol's knobs; the defaults suit one data centre of up to a few thousand nodes."""

    # --- Probing -----------------------------------------------------------------------
    probe_interval_s: float = 1.0
    """SWIM's protocol period T' (section 3.1): one member is probed in each. At least three
    round-trip times; 1 s is what memberlist's LAN profile takes."""
    probe_timeout_s: float = 0.5
    """Silence after a direct ping until others are asked (SWIM section 3.1)."""
    indirect_count: int = 3
    """SWIM's k (section 3.1): how many others are asked to probe a silent member."""
    nack_delay_share: float = 0.8
    """A relay says Nack after this share of the probe time-out, so that its word is back in
    time (Lifeguard section IV.A, LHA-Probe: 80 %)."""
    dead_probe_interval_s: float = 10.0
    """One dead member, drawn at random, is probed in each such time, so that healed partitions
    are noticed: SWIM as published never looks at the dead again."""
    dead_probe_duration_s: float = 72 * 3600.0
    """How long a dead member is still looked for: longer than a weekend."""
    probe_memory_s: float = 10.0
    """How long after a probe its answer still proves that the member lives (not that it is
    well): messages of a slow node are late by seconds."""

    # --- Suspicion ---------------------------------------------------------------------
    suspicion_multiplier: float = 4.0
    """The least time between suspicion and death, in probe intervals, however few the members:
    the accused is told directly, more than once, and may just have paused for seconds."""
    suspicion_growth: float = 2.0
    """From a hundred members on, the least time is this many probe intervals per
    log10(members): what a refutation needs to reach them all. memberlist takes 4, but there
    the accused hears of it only by rumour, and nobody asks it once more at the end."""
    suspicion_max_multiplier: float = 6.0
    """Lifeguard's beta (section IV.B): the time without any confirmation, in least times."""
    suspicion_confirmations: int = 2
    """Lifeguard's K (section IV.B): independent accusers, beyond the first, that shrink the
    time to its least."""
    freeze_share: float = 1 / 3
    """More than this share of the members silent within one suspicion time: it is us."""
    freeze_count_min: int = 3
    """Fewer silent members than this never freeze: in a cluster of three, two may die."""
    freeze_census: int = 16
    """While frozen, so many members are pinged in each probe interval besides the usual one:
    to know who is in view, and to find each other at once when the partition heals."""

    # --- Local health ------------------------------------------------------------------
    awareness_max: int = 8
    """Lifeguard's S plus one (section IV.A): the local health multiplier stays below it, so
    that a slow node probes and gives up at most this many times more slowly."""
    lag_threshold_s: float = 0.1
    """An event loop that is this late is itself slow: it counts against our own health."""

    # --- Dissemination -----------------------------------------------------------------
    rumour_interval_s: float = 0.2
    """Membership news goes out this often beyond what probes carry, while there is any
    (memberlist's GossipInterval): probes alone would triple the informed only once a second."""
    rumour_fanout: int = 3
    """To how many peers each time (memberlist's GossipNodes)."""
    rumour_miss_share: float = 1e-2
    """How often one node passes news on: until members * e^(-transmissions * (1 - loss)), the
    mean number of members that miss it, is below this. This is SWIM's lambda * log(n)
    (section 4.1) with the loss that our own probes see in the lambda. Whoever misses it learns
    it from the next probe."""

    # --- Replication -------------------------------------------------------------------
    push_fanout: int = 4
    """To how many peers a write is passed on in one round where there are too many for all."""
    push_direct_max: int = 32
    """Up to so many interested peers, a write goes to each of them at once by its author."""
    push_repeat_s: float = 0.015
    """A direct push goes out a second time after this: with 1 % loss one in ten writes to ten
    peers would else wait for the next probe to find what was lost."""
    push_interval_s: float = 0.05
    """Time between two rounds of passing on; more datagrams per round while much is waiting."""
    repairs_in_flight: int = 2
    """Exchanges of digests and missing segments that a node runs at once."""
    repair_retry_s: float = 0.2
    """Digests without an answer are sent again after this."""
    repair_timeout_s: float = 1.0
    """A repair without progress for this long is given up; the next probe starts another."""
    repair_turn_s: float = 5.0
    """After this long a repair makes room for one with another peer: what a member claims to have,
    and never sends, could else keep all others from being compared. What has come stays."""
    catch_up_interval_s: float = 0.02
    """After a start a node compares itself with its peers, one after the other, this fast and
    `repairs_in_flight` at once."""
    catch_up_peers_max: int = 32
    """With as many peers, if there are more: 32 x 700 bytes, not a megabyte per start."""
    confirm_retry_s: float = 0.1
    """An unconfirmed segment is sent again to the silent peers after this, then at double."""
    amnesia_wait_s: float = 10.0
    """How long a starting node without a peer in reach refuses to write anything new."""
