"""Messages of captures and sightings to and from msgpack arrays (`docs/PROTOCOL.md` 6.5)."""

from __future__ import annotations

from typing import Any

from overlay import limits
from overlay.core.capture import classic_bpf
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CapturedFrame,
    CaptureRequest,
    CaptureStatus,
    PlacedSighting,
    SightingAnswer,
    SightingRequest,
)
from overlay.wire.codec import validation

_ID_SIZE = 8
_LASTS_MS_MAX = int(limits.CAPTURE_PEER_LASTS_S * 1000)


def pack_capture_request(request: CaptureRequest) -> list[Any]:
    """Return the fields after the message's number."""
    return [
        request.request_id,
        request.number,
        request.vni,
        b"".join(request.ends),
        request.snap,
        request.program,
        request.lasts_ms,
    ]


def unpack_capture_request(fields: tuple[Any, ...]) -> CaptureRequest:
    """Return the request; raises RemoteError."""
    _, request_id, number, vni, ends, snap, program, lasts_ms = validation.array(fields, 8)
    size_max = limits.CAPTURE_PEER_FILTER_MAX * classic_bpf.SIZE
    raw = validation.octets_to(program, size_max)
    if len(raw) % classic_bpf.SIZE:
        validation.refuse_malformed()
    return CaptureRequest(
        validation.octets(request_id, _ID_SIZE),
        validation.integer(number),
        validation.integer(vni, limits.VNI_MAX, 1),
        _ends(ends),
        validation.integer(snap, limits.CAPTURE_PEER_SNAP_MAX, 1),
        raw,
        validation.integer(lasts_ms, _LASTS_MS_MAX),
    )


def pack_capture_answer(answer: CaptureAnswer) -> list[Any]:
    """Return the fields after the message's number."""
    status = answer.status
    return [
        answer.request_id,
        answer.sequence,
        answer.time_ns,
        [status.state, status.number, status.dropped, status.ifname],
        [[each.time_ns, each.is_outgoing, each.size, each.data] for each in answer.frames],
    ]


def unpack_capture_answer(fields: tuple[Any, ...]) -> CaptureAnswer:
    """Return the answer; raises RemoteError."""
    _, request_id, sequence, time_ns, status, frames = validation.array(fields, 6)
    return CaptureAnswer(
        validation.octets(request_id, _ID_SIZE),
        validation.integer(sequence),
        validation.integer(time_ns),
        _status(status),
        tuple(_frame(each) for each in validation.items(frames, limits.CAPTURE_BATCH_COUNT)),
    )


def _status(value: Any) -> CaptureStatus:
    state, number, dropped, ifname = validation.array(value, 4)
    return CaptureStatus(
        validation.integer(state, 255),
        validation.integer(number),
        validation.integer(dropped),
        validation.text(ifname, limits.INTERFACE_NAME_LENGTH_MAX),
    )


def _frame(value: Any) -> CapturedFrame:
    time_ns, is_outgoing, size, data = validation.array(value, 4)
    return CapturedFrame(
        validation.integer(time_ns),
        validation.boolean(is_outgoing),
        validation.integer(size, 2**32 - 1),
        validation.octets_to(data, limits.CAPTURE_PEER_SNAP_MAX),
    )


def pack_sighting_request(request: SightingRequest) -> list[Any]:
    """Return the fields after the message's number."""
    return [request.mark, request.vni, b"".join(request.ends), request.target]


def unpack_sighting_request(fields: tuple[Any, ...]) -> SightingRequest:
    """Return the request; raises RemoteError."""
    _, mark, vni, ends, target = validation.array(fields, 5)
    return SightingRequest(
        validation.octets(mark, _ID_SIZE),
        validation.integer(vni, limits.VNI_MAX, 1),
        _ends(ends),
        validation.ip(target),
    )


def pack_sighting_answer(answer: SightingAnswer) -> list[Any]:
    """Return the fields after the message's number."""
    seen = [[each.place, each.ifname, each.is_outgoing] for each in answer.sightings]
    return [answer.mark, answer.state, seen]


def unpack_sighting_answer(fields: tuple[Any, ...]) -> SightingAnswer:
    """Return the answer; raises RemoteError."""
    _, mark, state, sightings = validation.array(fields, 4)
    return SightingAnswer(
        validation.octets(mark, _ID_SIZE),
        validation.integer(state, 255),
        tuple(_sighting(each) for each in validation.items(sightings, limits.CAPTURE_BATCH_COUNT)),
    )


def _sighting(value: Any) -> PlacedSighting:
    place, ifname, is_outgoing = validation.array(value, 3)
    return PlacedSighting(
        validation.integer(place, 255),
        validation.text(ifname, limits.INTERFACE_NAME_LENGTH_MAX),
        validation.boolean(is_outgoing),
    )


def _ends(value: Any) -> tuple[bytes, bytes]:
    raw = validation.octets(value, 2 * _ID_SIZE)
    return raw[:_ID_SIZE], raw[_ID_SIZE:]
