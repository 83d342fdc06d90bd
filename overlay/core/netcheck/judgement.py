"""Judge all facts: about this host, its members, and other addresses."""

from __future__ import annotations

from overlay.core.netcheck.address_judgement import judge_address
from overlay.core.netcheck.facts import AgentState, Facts, NetcheckFinding
from overlay.core.netcheck.host_judgement import HOST, judge_host
from overlay.core.netcheck.peer_judgement import judge_peer


def judge(facts: Facts) -> list[NetcheckFinding]:
    """Return all findings: about this host, then about each peer and address."""
    found = list(judge_host(facts.host))
    if facts.target is None and facts.host.agent in (AgentState.ABSENT, AgentState.UNJOINED):
        found.append(_nothing_to_reach())
    for peer in facts.peers:
        found += judge_peer(peer, facts)
    members = {peer.address for peer in facts.peers}
    for address, probed in facts.addresses.items():
        if address not in members:
            found += judge_address(probed, facts.host)
    order = {"error": 0, "warn": 1, "note": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _nothing_to_reach() -> NetcheckFinding:
    return NetcheckFinding(
        "note",
        "not-joined",
        HOST,
        "this host is in no cluster: only the host itself was checked",
        "",
        "To check the way to a member: sudo overlayd netcheck ADDRESS --token-file FILE",
    )
