"""Judge one host's half of a way: what each step would do to a frame, and what to do about it.

Compares what is planned from records with what the kernel has. Steps are in the order in which a
frame meets them.
Owns: the judgement and its sentences. Does not: read anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.protocol.trace import Finding, Outcome, Phase, Step
from overlay.core.trace import container, native, policy, router, rows, tunnel
from overlay.core.trace.facts import HostFacts
from overlay.core.trace.judgement import Judged


def findings(facts: HostFacts) -> list[Finding]:
    """Return the findings about frames that this host sends, then those that it receives."""
    return [
        *(Finding(Phase.SEND, *each) for each in _sending(facts)),
        *(Finding(Phase.RECEIVE, *each) for each in _receiving(facts)),
    ]


def _sending(facts: HostFacts) -> Iterator[Judged]:
    yield container.interface(facts)
    if facts.container is not None and facts.container.ifname:
        yield container.route(facts, facts.container)
        yield from container.cache(facts, facts.container)
    yield rows.port(facts)
    yield rows.security(facts)
    yield from rows.isolation(facts)
    yield from policy.sending(facts)
    yield from _sending_sandbox(facts)
    yield from rows.fast_path_out(facts)
    if facts.peer.vtep is not None:
        yield rows.neighbor(facts.beyond, facts.peer.vtep)
        yield rows.fdb(facts.beyond, facts.peer.vtep)
        if not facts.peer.is_outside:
            yield tunnel.path_out(facts.beyond, facts.peer.vtep)
    yield tunnel.size(facts)


def _sending_sandbox(facts: HostFacts) -> Iterator[Judged]:
    if facts.router is None:
        segments = {facts.own.segment, facts.peer.segment}
        yield tunnel.sandbox(facts, segments, vtep_segment=facts.peer.segment)
        return
    yield tunnel.bridge(facts, facts.own.segment)
    yield router.link(facts, facts.router)
    yield tunnel.sandbox(facts.beyond, {facts.peer.segment}, vtep_segment=facts.peer.segment)


def _receiving(facts: HostFacts) -> Iterator[Judged]:
    if facts.arrives_from is not None:
        if not facts.peer.is_outside:
            yield tunnel.path_in(facts, facts.arrives_from)
        yield tunnel.admission(facts, facts.arrives_from)
    yield tunnel.sandbox(facts, {facts.own.segment}, vtep_segment=facts.own.segment)
    yield from native.path_in(facts)
    yield from rows.fast_path_in(facts)
    yield from policy.receiving(facts)
    yield from rows.isolation(facts)
    yield rows.port(facts)
    yield container.interface(facts)
    if facts.container is not None and facts.container.listens is not None:
        yield container.listener(facts, listens=facts.container.listens)


def unknown_record(phase: Phase, node: str, peer: str) -> Finding:
    """Return the finding of a host that lacks the record of one of the ends."""
    return Finding(
        phase,
        Step.RECORD,
        Outcome.DROP,
        f"{node} has no record of {peer}",
        "overlayd members --wide shows how far its records are behind; overlayd endpoint ls there",
    )
