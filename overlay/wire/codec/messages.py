"""Gossip messages to and from msgpack arrays, each headed by its number.

Owns: the message numbers (append only) and their strict decoding: `decode` returns exactly what
was encoded or raises RemoteError. Does not: sign (`wire.identity`) or seal (`wire.session`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from overlay import limits
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CaptureRequest,
    SightingAnswer,
    SightingRequest,
)
from overlay.core.protocol.messages import (
    Ack,
    AuthorityHandover,
    Buckets,
    Cards,
    CertificateRenewal,
    CertificateRequest,
    CheckAnswer,
    CheckRequest,
    Confirm,
    Delta,
    GrantRefusal,
    GrantRequest,
    LogVersion,
    MemberState,
    Message,
    Nack,
    PathReport,
    Ping,
    PingRequest,
    Pull,
    Rumour,
    Rumours,
    Versions,
)
from overlay.core.protocol.records import Scope, Segment
from overlay.core.protocol.trace import TraceAnswer, TraceRequest
from overlay.errors import RemoteError
from overlay.model import Card, NodeId
from overlay.wire.codec import validation
from overlay.wire.codec.capture import (
    pack_capture_answer,
    pack_capture_request,
    pack_sighting_answer,
    pack_sighting_request,
    unpack_capture_answer,
    unpack_capture_request,
    unpack_sighting_answer,
    unpack_sighting_request,
)
from overlay.wire.codec.cards import pack_certificate, unpack_card, unpack_certificate
from overlay.wire.codec.segments import unpack_segment
from overlay.wire.codec.trace import (
    pack_trace_answer,
    pack_trace_request,
    unpack_trace_answer,
    unpack_trace_request,
)

_PACK: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack
_BUCKET_COUNT = 64
_STATES = {int(state): state for state in MemberState}


# --- encoding ------------------------------------------------------------------------------


def _log_versions(versions: tuple[LogVersion, ...]) -> list[list[Any]]:
    return [[v.origin, v.scope, v.version, v.epoch] for v in versions]


_ENCODERS: dict[type, Callable[[Any], list[Any]]] = {
    Ping: lambda m: [1, m.sequence, m.root.to_bytes(16, "big"), m.lost],
    Ack: lambda m: [2, m.sequence, m.root.to_bytes(16, "big"), m.incarnation],
    PingRequest: lambda m: [3, m.sequence, m.target],
    Nack: lambda m: [4, m.sequence],
    Rumours: lambda m: [
        5,
        [[r.node_id, r.incarnation, int(r.state), r.accuser] for r in m.rumours],
    ],
    Cards: lambda m: [6, [[card.raw, card.signature] for card in m.cards]],
    Delta: lambda m: [7, [[s.raw, s.signature] for s in m.segments], m.confirm],
    Buckets: lambda m: [8, b"".join(d.to_bytes(8, "big") for d in m.digests), m.answer],
    Versions: lambda m: [9, m.complete_buckets, _log_versions(m.versions), m.answer],
    Pull: lambda m: [10, _log_versions(m.wants)],
    Confirm: lambda m: [11, _log_versions(m.versions)],
    GrantRequest: lambda m: [12, m.request_id, m.vni, m.around, m.count, m.exact],
    GrantRefusal: lambda m: [13, m.request_id, m.reason, m.free],
    CertificateRequest: lambda _: [14],
    CertificateRenewal: lambda m: [15, pack_certificate(m.certificate)],
    AuthorityHandover: lambda m: [16, m.key],
    PathReport: lambda m: [
        17,
        m.key,
        m.echo,
        m.sent,
        m.missed,
        m.seen,
        m.mask,
        m.limit,
    ],
    TraceRequest: lambda m: [18, *pack_trace_request(m)],
    TraceAnswer: lambda m: [19, *pack_trace_answer(m)],
    CheckRequest: lambda m: [20, m.number],
    CheckAnswer: lambda m: [21, m.number, m.time_ms, m.conditions],
    CaptureRequest: lambda m: [22, *pack_capture_request(m)],
    CaptureAnswer: lambda m: [23, *pack_capture_answer(m)],
    SightingRequest: lambda m: [24, *pack_sighting_request(m)],
    SightingAnswer: lambda m: [25, *pack_sighting_answer(m)],
}


# --- decoding ------------------------------------------------------------------------------


def _root(value: Any) -> int:
    return int.from_bytes(validation.octets(value, 16), "big")


def _node(value: Any) -> NodeId:
    return NodeId(validation.octets(value, 16))


def _ping(fields: tuple[Any, ...]) -> Message:
    _, sequence, root, lost = validation.array(fields, 4)
    return Ping(validation.integer(sequence), _root(root), validation.integer(lost, 1000))


def _ack(fields: tuple[Any, ...]) -> Message:
    _, sequence, root, incarnation = validation.array(fields, 4)
    return Ack(validation.integer(sequence), _root(root), validation.integer(incarnation))


def _ping_request(fields: tuple[Any, ...]) -> Message:
    _, sequence, target = validation.array(fields, 3)
    return PingRequest(validation.integer(sequence), _node(target))


def _nack(fields: tuple[Any, ...]) -> Message:
    _, sequence = validation.array(fields, 2)
    return Nack(validation.integer(sequence))


def _rumour(value: Any) -> Rumour:
    node_id, incarnation, state, accuser = validation.array(value, 4)
    found = _STATES.get(validation.integer(state, 255))
    if found is None:
        validation.refuse_malformed()
    return Rumour(_node(node_id), validation.integer(incarnation), found, _node(accuser))


def _rumours(fields: tuple[Any, ...]) -> Message:
    _, rumours = validation.array(fields, 2)
    return Rumours(tuple(_rumour(item) for item in validation.items(rumours)))


def _signed(value: Any) -> tuple[bytes, bytes]:
    raw, signature = validation.array(value, 2)
    return validation.octets_to(raw, limits.SEGMENT_SIZE_MAX), validation.octets_to(signature, 64)


def _buckets(fields: tuple[Any, ...]) -> Message:
    _, packed, answer = validation.array(fields, 3)
    raw = validation.octets(packed, 8 * _BUCKET_COUNT)
    digests = tuple(
        int.from_bytes(raw[8 * index : 8 * index + 8], "big") for index in range(_BUCKET_COUNT)
    )
    return Buckets(digests, validation.boolean(answer))


def _log_version(value: Any) -> LogVersion:
    origin, scope, version, epoch = validation.array(value, 4)
    return LogVersion(
        _node(origin),
        Scope(validation.integer(scope, limits.VNI_MAX)),
        validation.integer(version),
        validation.integer(epoch, 2**32),
    )


def _log_version_list(value: Any) -> tuple[LogVersion, ...]:
    return tuple(_log_version(item) for item in validation.items(value))


def _versions(fields: tuple[Any, ...]) -> Message:
    _, complete, versions, answer = validation.array(fields, 4)
    buckets = validation.items(complete, _BUCKET_COUNT)
    return Versions(
        tuple(validation.integer(item, _BUCKET_COUNT - 1) for item in buckets),
        _log_version_list(versions),
        validation.boolean(answer),
    )


def _pull(fields: tuple[Any, ...]) -> Message:
    _, wants = validation.array(fields, 2)
    return Pull(_log_version_list(wants))


def _confirm(fields: tuple[Any, ...]) -> Message:
    _, versions = validation.array(fields, 2)
    return Confirm(_log_version_list(versions))


def _grant_request(fields: tuple[Any, ...]) -> Message:
    _, request_id, vni, around, count, exact = validation.array(fields, 6)
    return GrantRequest(
        validation.octets(request_id, 8),
        validation.integer(vni, limits.VNI_MAX, 1),
        validation.ip(around),
        validation.integer(count, 2**32),
        validation.boolean(exact),
    )


def _grant_refusal(fields: tuple[Any, ...]) -> Message:
    _, request_id, reason, free = validation.array(fields, 4)
    return GrantRefusal(
        validation.octets(request_id, 8),
        validation.text(reason),
        validation.integer(free, limits.FREE_TOLD_MAX),
    )


def _certificate_request(fields: tuple[Any, ...]) -> Message:
    validation.array(fields, 1)
    return CertificateRequest()


def _certificate_renewal(fields: tuple[Any, ...]) -> Message:
    _, value = validation.array(fields, 2)
    certificate = unpack_certificate(value)
    if certificate is None:
        validation.refuse_malformed()
    return CertificateRenewal(certificate)


def _authority_handover(fields: tuple[Any, ...]) -> Message:
    _, key = validation.array(fields, 2)
    return AuthorityHandover(validation.octets(key, 32))


def _path_report(fields: tuple[Any, ...]) -> Message:
    _, key, echo, sent, missed, seen, mask, limit = validation.array(fields, 8)
    return PathReport(
        validation.octets(key, limits.PATH_KEY_SIZE),
        validation.octets(echo, limits.PATH_ECHO_SIZE),
        validation.integer(sent),
        validation.integer(missed, limits.PATH_MISSES_REPORTED_MAX),
        validation.integer(seen),
        validation.integer(mask),
        validation.integer(limit, limits.IP_PACKET_SIZE_MAX),
    )


def _check_request(fields: tuple[Any, ...]) -> Message:
    _, number = validation.array(fields, 2)
    return CheckRequest(validation.integer(number))


def _check_answer(fields: tuple[Any, ...]) -> Message:
    _, number, time_ms, conditions = validation.array(fields, 4)
    return CheckAnswer(
        validation.integer(number), validation.integer(time_ms), validation.integer(conditions)
    )


_DECODERS: dict[int, Callable[[tuple[Any, ...]], Message]] = {
    1: _ping,
    2: _ack,
    3: _ping_request,
    4: _nack,
    5: _rumours,
    8: _buckets,
    9: _versions,
    10: _pull,
    11: _confirm,
    12: _grant_request,
    13: _grant_refusal,
    14: _certificate_request,
    15: _certificate_renewal,
    16: _authority_handover,
    17: _path_report,
    18: unpack_trace_request,
    19: unpack_trace_answer,
    20: _check_request,
    21: _check_answer,
    22: unpack_capture_request,
    23: unpack_capture_answer,
    24: unpack_sighting_request,
    25: unpack_sighting_answer,
}


class MsgpackCodec:
    """The codec of the real wire (core.protocol.interfaces.Codec).

    Signed segments and cards are decoded by `decode_segment` and `decode_card` also within
    messages: a codec with a cache needs to override only these.
    """

    def __init__(self) -> None:
        self._decoders = {**_DECODERS, 6: self._cards, 7: self._delta}

    def encode(self, message: Message) -> bytes:
        """Return the message's bytes."""
        return _PACK(_ENCODERS[type(message)](message))

    def decode(self, payload: bytes) -> list[Message]:
        """Return the messages of a payload.

        Raises RemoteError on anything that `encode` would not have written.
        """
        if len(payload) > limits.PAYLOAD_SIZE_MAX:
            validation.refuse_malformed()
        found: list[Message] = []
        for fields in validation.unpack_all(payload):
            items = validation.items(fields, 9)
            decoder = self._decoders.get(validation.integer(items[0], 255)) if items else None
            if decoder is None:
                raise RemoteError("unknown-message")
            found.append(decoder(items))
        return found

    def decode_segment(self, raw: bytes, signature: bytes) -> Segment:
        """Return a segment from its signed bytes."""
        return unpack_segment(raw, signature)

    def decode_card(self, raw: bytes, signature: bytes) -> Card:
        """Return a card from its signed bytes."""
        return unpack_card(raw, signature)

    def _cards(self, fields: tuple[Any, ...]) -> Message:
        _, cards = validation.array(fields, 2)
        return Cards(tuple(self.decode_card(*_signed(item)) for item in validation.items(cards)))

    def _delta(self, fields: tuple[Any, ...]) -> Message:
        _, segments, confirm = validation.array(fields, 3)
        found = tuple(self.decode_segment(*_signed(item)) for item in validation.items(segments))
        return Delta(found, validation.boolean(confirm))
