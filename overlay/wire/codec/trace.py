"""Trace requests and answers to and from the fields of msgpack arrays (`docs/PROTOCOL.md` 6.2)."""

from __future__ import annotations

from typing import Any

from overlay import limits
from overlay.core.protocol.trace import Finding, Outcome, Phase, TraceAnswer, TraceRequest
from overlay.wire.codec import validation

_OUTCOMES = {int(each): each for each in Outcome}
_PHASES = {int(each): each for each in Phase}
_ID_SIZE = 8


def pack_trace_request(request: TraceRequest) -> list[Any]:
    """Return the fields after the message's number."""
    return [
        request.request_id,
        request.vni,
        request.endpoint_id,
        request.peer_id,
        request.peer_ip,
        request.protocol,
        request.port,
        *(() if request.opened_port is None else (request.opened_port,)),
    ]


def unpack_trace_request(fields: tuple[Any, ...]) -> TraceRequest:
    """Return the request; raises RemoteError."""
    given = validation.items(fields, 9)
    _, request_id, vni, endpoint_id, peer_id, peer_ip, protocol, port = validation.array(
        given[:8], 8
    )
    return TraceRequest(
        validation.octets(request_id, _ID_SIZE),
        validation.integer(vni, limits.VNI_MAX, 1),
        validation.octets(endpoint_id, _ID_SIZE),
        validation.octets(peer_id, _ID_SIZE),
        validation.ip(peer_ip),
        validation.integer(protocol, 255),
        validation.integer(port, 65_535),
        validation.integer(given[8], 65_535) if len(given) > 8 else None,
    )


def pack_trace_answer(answer: TraceAnswer) -> list[Any]:
    """Return the fields after the message's number."""
    return [
        answer.request_id,
        answer.part,
        answer.part_count,
        [[int(f.phase), int(f.step), int(f.outcome), f.text, f.hint] for f in answer.findings],
    ]


def unpack_trace_answer(fields: tuple[Any, ...]) -> TraceAnswer:
    """Return the answer; raises RemoteError."""
    _, request_id, part, part_count, found = validation.array(fields, 5)
    count = validation.integer(part_count, limits.TRACE_PARTS_MAX, 1)
    return TraceAnswer(
        validation.octets(request_id, _ID_SIZE),
        validation.integer(part, count - 1),
        count,
        tuple(_finding(each) for each in validation.items(found, limits.TRACE_FINDINGS_MAX)),
    )


def _finding(value: Any) -> Finding:
    phase, step, outcome, text, hint = validation.array(value, 5)
    known_phase = _PHASES.get(validation.integer(phase, 255))
    known_outcome = _OUTCOMES.get(validation.integer(outcome, 255))
    if known_phase is None or known_outcome is None:
        validation.refuse_malformed()
    return Finding(
        known_phase,
        validation.integer(step, 255),
        known_outcome,
        validation.text(text, limits.TRACE_TEXT_LENGTH_MAX),
        validation.text(hint, limits.TRACE_TEXT_LENGTH_MAX),
    )
