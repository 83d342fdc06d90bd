"""Timers, fan-outs and multipliers of the protocol, with their sources.

Owns: numbers; their use is documented where they are used. Bounds on memory and sizes are in
`overlay.limits`: those protect this node, while these shape the protocol and may be changed by a
test, a profile or the configuration file.

Sources: SWIM = Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process
Group Membership Protocol", DSN 2002. Lifeguard = Dadgar, Phillips, Currey, "Lifeguard: Local
Health Awareness for More Accurate Failure Detection", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """The protocol's settings.

    The defaults suit one data centre of up to a few thousand nodes.
    """

    # --- Probing -----------------------------------------------------------------------
    probe_interval_s: float = 1.0
    """SWIM's protocol period T' (section 3.1): one member is probed in each.

    At least three round-trip times; memberlist's LAN profile uses 1 s.
    """
    probe_timeout_s: float = 0.5
    """Time without an Ack until indirect probes are sent (SWIM section 3.1)."""
    indirect_count: int = 3
    """SWIM's k (section 3.1): how many members relay an indirect probe."""
    nack_delay_share: float = 0.8
    """A relay sends Nack after this share of the probe timeout.

    So that it arrives in time (Lifeguard section IV.A, LHA-Probe: 80 %).
    """
    dead_probe_interval_s: float = 10.0
    """Interval at which one random dead member is probed.

    It detects that a partition has healed: SWIM as published never probes dead members.
    """
    dead_probe_duration_s: float = 72 * 3600.0
    """How long a dead member is probed: longer than a weekend."""
    probe_memory_s: float = 10.0
    """How long after a probe its answer still proves that the member lives.

    Messages of a slow node can be late by seconds; a late answer does not prove that it is
    healthy.
    """

    # --- Suspicion ---------------------------------------------------------------------
    suspicion_multiplier: float = 4.0
    """The minimum suspicion timeout in probe intervals, for few members.

    The suspect is notified directly and more than once, and may just have paused for seconds.
    """
    suspicion_growth: float = 2.0
    """The minimum timeout in probe intervals per log10(members), for many.

    From a hundred members on. It is the time in which a refutation reaches all of them.
    memberlist uses 4, but there the suspect learns of the suspicion only by gossip, and is not
    probed once more at the end.
    """
    suspicion_max_multiplier: float = 6.0
    """Lifeguard's beta (section IV.B): the timeout without confirmations.

    In minimum timeouts.
    """
    suspicion_confirmations: int = 2
    """Lifeguard's K (section IV.B): confirmations for the minimum timeout."""
    freeze_share: float = 1 / 3
    """The share of members whose simultaneous silence is a fault of this node.

    Counted within one suspicion timeout.
    """
    freeze_count_min: int = 3
    """Fewer silent members than this never freeze.

    In a cluster of three, two may die.
    """
    freeze_census: int = 16
    """Additional members pinged in each probe interval while frozen.

    They show which members are reachable, and that the partition has healed.
    """

    # --- Local health ------------------------------------------------------------------
    awareness_max: int = 8
    """Lifeguard's S plus one (section IV.A): bound of the health multiplier.

    Exclusive. A slow node probes and times out at most this many times more slowly.
    """
    lag_threshold_s: float = 0.1
    """An event-loop lag from which this node counts as slow itself."""

    # --- Dissemination -----------------------------------------------------------------
    rumour_interval_s: float = 0.2
    """Interval of membership updates, besides those on probes.

    memberlist's GossipInterval. Probes alone would triple the number of informed members only
    once a second.
    """
    rumour_fanout: int = 3
    """Receivers of each such update (memberlist's GossipNodes)."""
    rumour_miss_share: float = 1e-2
    """Bounds the mean number of members that miss an update.

    One node sends it on until members * e^(-transmissions * (1 - loss)) is below this. This is
    SWIM's lambda * log(n) (section 4.1) where lambda includes the loss that this node's own
    probes measure. A member that misses the update learns it from the next probe.
    """

    # --- Replication -------------------------------------------------------------------
    push_fanout: int = 4
    """Number of peers that a write is relayed to in one round."""
    push_direct_max: int = 32
    """Up to this many interested peers, the author sends to each directly."""
    push_repeat_s: float = 0.015
    """A direct push is repeated after this time.

    With 1 % loss one in ten writes to ten peers would otherwise wait for the next probe to repair
    it.
    """
    push_interval_s: float = 0.05
    """Interval of relay rounds.

    A round has more datagrams while the queue is long.
    """
    repairs_in_flight: int = 2
    """Number of anti-entropy exchanges that a node runs at once."""
    repair_retry_s: float = 0.2
    """Digests without an answer are sent again after this time."""
    repair_timeout_s: float = 1.0
    """An exchange without progress for this long ends.

    The next probe starts another.
    """
    repair_turn_s: float = 5.0
    """After this time an exchange yields to one with another peer.

    Otherwise a member that advertises logs but never sends them could block all other exchanges.
    The segments received so far are kept.
    """
    catch_up_interval_s: float = 0.02
    """Interval between the exchanges that a starting node begins.

    At most `repairs_in_flight` run at once.
    """
    catch_up_peers_max: int = 32
    """Maximum number of peers for those exchanges.

    32 x 700 bytes, rather than a megabyte per start.
    """
    confirm_retry_s: float = 0.1
    """An unconfirmed segment is sent again after this time.

    Then after twice as long, and so on.
    """
    amnesia_wait_s: float = 10.0
    """How long a starting node that reaches no peer refuses to write."""
    first_contact_wait_s: float = 0.0
    """How long a starting node that knows of no other waits for one to contact it.

    Its disk may be so old that it has forgotten all members.
    """
    alone_wait_s: float = 10.0
    """After this time a starting node without other members holds all that there is.

    The others have left or are forgotten, or there never were any (`founded_cluster`).
    """
    founded_cluster: bool = False
    """Whether this node created its cluster, so that there may be no other member.

    One that joins knows of nobody at first.
    """
