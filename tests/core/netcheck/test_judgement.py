"""From facts to findings: the right cause and remedy for each fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from overlay.core.netcheck.facts import (
    AddressFacts,
    AgentState,
    BlockedPacket,
    ChecksumErrors,
    Facts,
    FullTable,
    LocalFacts,
    NetcheckFinding,
    PeerFacts,
    Reply,
)
from overlay.core.netcheck.judgement import judge
from overlay.core.netcheck.packet_filter import Obstacle

HOST = LocalFacts(AgentState.MEMBER, address="192.168.56.11", interface="eth1")
VM2 = PeerFacts("vm2", "192.168.56.12", gossip_answers=True, rtt_ms=0.4)
VM3 = PeerFacts("vm3", "192.168.56.13", gossip_answers=True, rtt_ms=0.4)
RULE = Obstacle("nft chain inet cut in: 'udp dport 4789 drop'", "nft delete rule 1", certain=True)
SILENT = replace(VM2, gossip_answers=False, rtt_ms=None)


def found(
    host: LocalFacts = HOST, *peers: PeerFacts, probed: AddressFacts | None = None, **more: Any
) -> list[NetcheckFinding]:
    """Return the findings about facts."""
    addresses = {} if probed is None else {probed.address: probed}
    return judge(Facts(host, peers, addresses, **more))


def codes(*arguments: Any, **more: Any) -> list[tuple[str, str]]:
    """Return the subject and code of each finding."""
    return [(each.subject, each.code) for each in found(*arguments, **more)]


def test_a_whole_cluster_has_no_finding() -> None:
    """Nothing is said about what is well."""
    assert found(HOST, VM2, VM3) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"interface": None}, "no-route"),
        ({"is_up": False}, "interface-down"),
        ({"has_carrier": False}, "no-carrier"),
        ({"mtu": 1200}, "mtu-too-small"),
        ({"ipv6_disabled": True}, "ipv6-disabled"),
        ({"agent": AgentState.DEAD, "sandboxes": 1}, "agent-dead"),
        ({"agent": AgentState.HANGING}, "agent-hangs"),
        ({"gossip_port_taken": True}, "gossip-port-taken"),
        ({"filter_rewritten_s": 3.0}, "filter-rewritten"),
        ({"full_tables": (FullTable("connection-tracking", 9, 9, "x", 0),)}, "table-full"),
        ({"rp_filter": 1, "rp_filter_drops": 2}, "rp-filter"),
        ({"checksum_errors": (ChecksumErrors("netns:c2", 5, 5),)}, "checksums"),
        ({"buffer_errors": 7}, "receive-buffer"),
        ({"missing_modules": ("vxlan",)}, "kernel-modules"),
    ],
)
def test_each_fault_of_the_host_is_named(changes: dict[str, Any], code: str) -> None:
    """With something to do about it."""
    (finding,) = found(replace(HOST, **changes))

    assert (finding.subject, finding.code) == ("this host", code)
    assert finding.hint


def test_a_host_that_is_cut_off_blames_no_other() -> None:
    """Nothing can be known of them."""
    down = replace(HOST, is_up=False)
    probed = AddressFacts("192.168.56.12")

    assert codes(down, SILENT, VM3, probed=probed) == [("this host", "interface-down")]


def test_a_rule_here_is_one_finding_for_all_peers() -> None:
    """It names the rule, whom it concerns, and the command that lifts it."""
    blocked = tuple(BlockedPacket(4789, True, name, 150, False, RULE) for name in ("vm2", "vm3"))
    here, *lost = found(replace(HOST, blocked=blocked), replace(VM2, receiving="lost"), VM3)

    assert here.text == "a packet filter of this host drops VXLAN from vm2, vm3 (UDP 4789)"
    assert (here.why, here.hint) == (f"by {RULE.where}", RULE.remedy)
    assert [(each.code, each.why) for each in lost] == [
        ("vxlan-lost-from", "a filter of this host drops it, as said about this host")
    ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sending": "lost"}, "vxlan-lost-to"),
        ({"sending": "silent"}, "vxlan-lost-to"),
        ({"is_waiting": True}, "vxlan-lost-to"),
        ({"receiving": "lost"}, "vxlan-lost-from"),
        ({"is_unheard": True}, "vxlan-lost-from"),
        ({"sending": "lost", "receiving": "lost"}, "vxlan-lost"),
        ({"sending": "damaged"}, "checksums"),
        ({"receiving": "damaged"}, "checksums"),
        ({"size_carried": 1400}, "size-limited"),
        ({"size_carried": 0}, "size-fails"),
        ({"size_carried": None, "size_fails": True}, "size-fails"),
        ({"size_received": 1400}, "size-limited-from"),
        ({"clock_ahead_s": -4000.0}, "clock-skew"),
        ({"filter_rewritten": True}, "filter-rewritten"),
        ({"filter_broken": True}, "filter-broken"),
        ({"checksum_errors": True}, "checksums"),
    ],
)
def test_each_fault_of_a_path_is_named(changes: dict[str, Any], code: str) -> None:
    """With the peer, a cause and something to do about it."""
    (finding,) = found(HOST, replace(VM2, **changes), VM3)

    assert (finding.subject, finding.code) == ("vm2", code)
    assert finding.hint


@pytest.mark.parametrize("address", [HOST.address, VM3.address])
def test_a_former_identity_is_no_host_that_is_silent(address: str) -> None:
    """Its host has joined anew, and answers as another member, or is this one."""
    former = replace(SILENT, state="dead", address=address)
    (finding,) = found(HOST, former, VM3, probed=AddressFacts(address, other=Reply.REFUSED))

    assert (finding.level, finding.code) == ("note", "former-identity")


def test_vxlan_is_not_blamed_for_gossip_that_is_lost() -> None:
    """No report of a member arrives that others hear, so nothing is known of VXLAN to it."""
    unheard = replace(VM2, sending="silent", rtt_ms=None, is_waiting=True)
    (finding,) = found(HOST, unheard, VM3)
    seen = [code for _, code in codes(HOST, replace(unheard, receiving="lost"), VM3)]
    rule = BlockedPacket(7948, True, "vm2", 150, False, RULE)
    *_, own = found(replace(HOST, blocked=(rule,)), unheard, VM3)

    assert (finding.subject, finding.code) == ("vm2", "gossip-lost-from")
    assert "gossip (UDP 7948) from vm2 (192.168.56.12) does not arrive" in finding.text
    assert "drops UDP 7948" in finding.why
    assert seen == ["gossip-lost-from", "vxlan-lost-from"]
    assert own.why == "a filter of this host drops it, as said about this host"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sending": "unknown", "is_waiting": True}, "not-probed"),
        ({"receiving": "unknown"}, "not-probed"),
        ({"sending": "unknown", "is_waiting": True, "receiving": "lost"}, "vxlan-lost-from"),
    ],
)
def test_a_path_without_a_verdict_is_not_called_lost(changes: dict[str, Any], code: str) -> None:
    """Nor does it count as a problem; a direction that is lost does."""
    (finding,) = found(HOST, replace(VM2, **changes), VM3)

    assert (finding.subject, finding.code) == ("vm2", code)
    assert (finding.level == "note") is (code == "not-probed")


def test_the_other_pairs_narrow_the_cause() -> None:
    """VXLAN to another member works: this host sends it."""
    lost = replace(VM2, sending="lost")
    (one,) = found(HOST, lost, VM3)
    (first, _) = found(HOST, lost, replace(VM3, sending="lost"))

    assert "VXLAN to vm3 works: a filter on vm2" in one.why
    assert "VXLAN to no other member works either: a filter on this host" in first.why


def test_a_rule_that_may_drop_is_mentioned() -> None:
    """Only where something is lost."""
    doubtful = RULE._replace(certain=False)
    host = replace(HOST, blocked=(BlockedPacket(4789, False, "vm2", 150, False, doubtful),))

    assert found(host, VM2) == []
    (finding,) = found(host, replace(VM2, sending="lost"))
    assert f"perhaps {RULE.where}" in finding.why


@pytest.mark.parametrize(
    ("probed", "code"),
    [
        ({"gossip": Reply.REFUSED}, "agent-dead"),
        ({"gossip": Reply.PROHIBITED, "rejected_by": "192.168.56.1"}, "rejected"),
        ({"gossip": Reply.UNREACHABLE}, "unreachable"),
        ({"is_neighbor": True, "neighbor_failed": True}, "neighbor-missing"),
        ({"other": Reply.REFUSED}, "gossip-filtered"),
        ({"echo_ms": 0.3}, "gossip-filtered"),
        ({}, "host-silent"),
    ],
)
def test_a_silent_member_is_told_from_a_dead_one(probed: dict[str, Any], code: str) -> None:
    """By what other packets to it bring back."""
    (finding,) = found(HOST, SILENT, VM3, probed=AddressFacts(SILENT.address, **probed))

    assert (finding.subject, finding.code) == ("vm2", code)
    assert finding.hint


def test_a_dead_agent_may_still_forward() -> None:
    """Its VXLAN port is not refused."""
    dead = AddressFacts(SILENT.address, gossip=Reply.REFUSED)
    (forwards,) = found(HOST, SILENT, probed=dead)
    (gone,) = found(HOST, SILENT, probed=replace(dead, vxlan=Reply.REFUSED))

    assert "stay reachable by address" in forwards.why
    assert "forwards nothing" in gone.why


def test_a_neighbor_whose_mac_is_known_may_have_a_firewall() -> None:
    """One that drops everything does not stop ARP."""
    probed = AddressFacts(SILENT.address, is_neighbor=True)
    (near,) = found(HOST, SILENT, VM3, probed=probed)
    (far,) = found(HOST, SILENT, VM3, probed=AddressFacts(SILENT.address))

    assert near.code == far.code == "host-silent"
    assert "a filter there drops everything" in near.why
    assert "the host is off" in far.why


@pytest.mark.parametrize(
    ("probed", "found_codes"),
    [
        ({"gossip": Reply.ANSWERED}, []),
        ({"other": Reply.REFUSED}, ["gossip-unproven"]),
        ({"other": Reply.REFUSED, "has_token": True}, ["gossip-filtered"]),
        ({"gossip": Reply.REFUSED}, ["agent-dead"]),
        ({"gossip": Reply.PROHIBITED}, ["rejected"]),
        ({"gossip": Reply.ANSWERED, "vxlan": Reply.PROHIBITED}, ["rejected"]),
        ({"is_neighbor": True, "neighbor_failed": True}, ["neighbor-missing"]),
        ({}, ["host-silent"]),
        ({"gossip": Reply.ANSWERED, "size_sent": 1500, "size_passed": 1400}, ["size-limited"]),
        ({"gossip": Reply.ANSWERED, "clock_ahead_s": 90.0}, ["clock-skew"]),
    ],
)
def test_a_host_is_checked_before_this_one_joins(
    probed: dict[str, Any], found_codes: list[str]
) -> None:
    """By what its kernel answers, and its agent for a token."""
    outside = replace(HOST, agent=AgentState.ABSENT)
    address = "192.168.56.12"
    findings = found(outside, probed=AddressFacts(address, **probed), target=address)

    assert [each.code for each in findings] == found_codes
    assert {each.subject for each in findings} <= {address}


def test_problems_come_first() -> None:
    """Errors, then warnings, then notes."""
    outside = replace(
        HOST,
        agent=AgentState.ABSENT,
        unchecked=("rules were not read",),
        filter_rewritten_s=3.0,
        missing_modules=("vxlan",),
    )
    levels = [each.level for each in found(outside)]

    assert levels == ["error", "warn", "note", "note"]


TUNNEL2 = replace(VM2, wireguard_port=7949, wireguard_answers=False)
TUNNEL3 = replace(VM3, wireguard_port=7950, wireguard_answers=True)


def test_a_silent_tunnel_is_named_with_its_port() -> None:
    """Beside a path in clear that is well, and with the members whose tunnels answer."""
    (lost,) = found(HOST, TUNNEL2, TUNNEL3)

    assert (lost.subject, lost.code) == ("vm2", "wireguard-lost")
    assert "WireGuard (UDP 7949) to vm2" in lost.text
    assert "WireGuard to vm3 works" in lost.why
    assert "drops UDP 7949" in lost.why
    assert "Allow UDP 7949" in lost.hint
    assert "--vxlan-port" not in lost.hint


def test_a_rule_against_wireguard_is_the_cause() -> None:
    """The rule is named with the protocol, and so is a rule about large packets only."""
    host = replace(HOST, wireguard_ports=(7949,))
    rule = BlockedPacket(7949, False, "vm2", 150, False, RULE)
    here, lost = found(replace(host, blocked=(rule,)), TUNNEL2)
    assert here.code == "wireguard-filtered-here"
    assert here.text == "a packet filter of this host drops WireGuard to vm2 (UDP 7949)"
    assert lost.why == "a filter of this host drops it, as said about this host"

    large = replace(host, blocked=(rule._replace(size=1500, is_large=True),))
    (sizes, limited) = found(large, replace(TUNNEL3, is_encrypted=True, size_carried=1400))
    assert "drops packets of 1500 bytes of WireGuard" in sizes.text
    assert limited.code == "size-limited"


def test_a_dead_tunnel_is_told_from_a_filter() -> None:
    """The peer's kernel answers that nothing listens on the port."""
    refused = AddressFacts(VM2.address, wireguard=Reply.REFUSED)
    (dead,) = found(HOST, TUNNEL2, probed=refused)

    assert (dead.code, dead.subject) == ("wireguard-lost", "vm2")
    assert "its WireGuard device is gone" in dead.why
    assert "encryption status" in dead.hint


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sending": "lost"}, "wireguard-lost-to"),
        ({"receiving": "lost"}, "wireguard-lost-from"),
        ({"sending": "lost", "receiving": "lost"}, "wireguard-lost"),
    ],
)
def test_lost_probes_of_a_tunnel_are_not_called_vxlan(changes: dict[str, Any], code: str) -> None:
    """With no other network in common, the tunnel carries the probes."""
    (lost,) = found(HOST, replace(TUNNEL2, is_encrypted=True, **changes))

    assert lost.code == code
    assert "WireGuard (UDP 7949)" in lost.text


def test_a_neighbor_that_is_gone_is_not_called_a_route() -> None:
    """This host's own kernel says `unreachable` once its ARP has failed."""
    probed = AddressFacts(
        VM2.address, gossip=Reply.UNREACHABLE, is_neighbor=True, neighbor_failed=True
    )
    assert codes(HOST, SILENT, probed=probed) == [("vm2", "neighbor-missing")]
    assert codes(HOST, probed=probed) == [(VM2.address, "neighbor-missing")]
    filtered = replace(probed, gossip=Reply.PROHIBITED)
    assert codes(HOST, SILENT, probed=filtered) == [("vm2", "rejected")]
