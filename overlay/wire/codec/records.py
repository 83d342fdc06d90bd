"""Records to and from msgpack arrays.

Owns: the record tags (wire numbers, append only). Does not: know segments, in which records travel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations
from typing import Any, Final, TypeVar

from overlay import limits
from overlay.core.protocol.records import (
    Admission,
    AuthorityHolderRecord,
    BackendHealth,
    CustomRecord,
    DeclaredObject,
    Entry,
    ForgottenNode,
    JoinToken,
    KeptRun,
    Key,
    KeyId,
    KeyState,
    Participation,
    ReclaimStatement,
    RemovedNetwork,
    TokenRevocation,
    Value,
    key_of,
)
from overlay.model import (
    Endpoint,
    Grant,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
)
from overlay.wire.codec import validation

Shared = TypeVar("Shared")

TAGS: dict[str, int] = {
    "network": 1,
    "endpoint": 2,
    "grant": 3,
    "participation": 4,
    "forgotten": 5,
    "removed": 7,
    "settled": 8,
    "holder": 9,
    "invitation": 10,
    "revocation": 11,
    "admission": 12,
    "keys": 14,
    "name": 13,
    "declared": 15,
    "health": 16,
}
KINDS = {tag: kind for kind, tag in TAGS.items()}
_SHARED_MAX: Final = 1024
_IDENTITY_SIZE_MAX = 32
_NODE_ID_SIZE = 16
_SIGNATURE_SIZE = 64


def encode_value(value: Value) -> tuple[int, list[Any]]:
    """Return a value's tag and fields."""
    match value:
        case Network():
            subnets = [_subnet_fields(subnet) for subnet in value.subnets]
            head = [value.vni, value.name, subnets, value.internal, value.labels]
            return 1, [*head, value.creator, value.isolate_subnets]
        case Endpoint():
            head = [value.endpoint_id, value.vni, value.name, value.mac, value.ips]
            return 2, [*head, value.aliases, value.labels]
        case Grant():
            head = [value.vni, value.first, value.last, value.grantee]
            return 3, [*head, value.generation, value.request_id]
        case Participation():
            return 4, [value.vni, value.forwards]
        case ForgottenNode():
            return 5, [value.node_id, value.warrant]
        case RemovedNetwork():
            return 7, [value.vni, value.creator]
        case ReclaimStatement():
            kept = [list(item) for item in value.kept]
            return 8, [value.node_id, value.reclaiming_node, value.part, value.parts, kept]
        case AuthorityHolderRecord():
            return 9, [value.proof]
        case JoinToken():
            head = [value.token_id, value.join_key, value.verifier, value.label, value.created_s]
            return 10, [*head, value.expires_s, value.uses_max, value.signature]
        case TokenRevocation():
            return 11, [value.token_id, value.signature]
        case Admission():
            return 12, [value.token_id, value.node_id]
        case KeyState():
            return 14, [list(value.newest), list(value.sealing)]
        case CustomRecord():
            return 13, [value.name, value.ips]
        case DeclaredObject():
            return 15, [value.kind, value.name, value.version, value.body]
        case BackendHealth():
            return 16, [value.endpoint_id, value.service, value.is_healthy]


def _subnet_fields(subnet: Subnet) -> list[Any]:
    head = [subnet.base, subnet.prefix_length, subnet.gateway, subnet.ip_range or ()]
    return [*head, subnet.auxiliary, subnet.block_length]


def shared(value: Shared) -> Shared:
    """Return an equal value of an earlier record, so that very many records hold it once."""
    known: Shared = _first_equal(value)
    return known


@lru_cache(_SHARED_MAX)
def _first_equal(value: Any) -> Any:
    return value


def _vni(value: Any) -> Vni:
    return shared(Vni(validation.integer(value, limits.VNI_MAX, 1)))


def _node(value: Any) -> NodeId:
    return NodeId(validation.octets(value, _NODE_ID_SIZE))


def _subnet(value: Any) -> Subnet:
    base, prefix_length, gateway, ip_range, auxiliary, block_length = validation.array(value, 6)
    bits = 8 * len(validation.ip(base))
    length = validation.integer(prefix_length, bits - 1, 1)
    found = Subnet(
        _base(base, length),
        length,
        validation.ip(gateway),
        _ip_range(ip_range, bits),
        tuple(_auxiliary(item) for item in validation.items(auxiliary, limits.AUXILIARY_COUNT_MAX)),
        validation.integer(block_length, bits - 1),
    )
    inside = [found.gateway, *(ip for _, ip in found.auxiliary)]
    if found.ip_range is not None:
        inside.append(found.ip_range[0])
    if any(ip not in found for ip in inside):
        validation.refuse_malformed()
    if found.block_length and found.block_length < found.prefix_length:
        validation.refuse_malformed()
    if found.ip_range is not None and found.ip_range[1] < found.prefix_length:
        validation.refuse_malformed()
    return found


def _ip_range(value: Any, bits: int) -> tuple[Ip, int] | None:
    if value == ():
        return None
    base, raw_length = validation.array(value, 2)
    length = validation.integer(raw_length, bits, 1)
    return _base(base, length), length


def _base(value: Any, length: int) -> Ip:
    """Return the base address of a range with that prefix length."""
    base = validation.ip(value)
    if int.from_bytes(base, "big") % (1 << max(0, 8 * len(base) - length)):
        # Not aligned: the range would end beyond its last address.
        validation.refuse_malformed()
    return base


def _auxiliary(value: Any) -> tuple[str, Ip]:
    name, ip = validation.array(value, 2)
    return validation.name(name), validation.ip(ip)


def _network(fields: Any) -> Network:
    vni, name, subnets, internal, labels, creator, isolate_subnets = validation.array(fields, 7)
    found = tuple(_subnet(item) for item in validation.items(subnets, limits.SUBNET_COUNT_MAX))
    first = _vni(vni)
    if not found or first + len(found) - 1 > limits.VNI_MAX:  # a VNI for each subnet
        validation.refuse_malformed()
    if any(one.base in other or other.base in one for one, other in combinations(found, 2)):
        validation.refuse_malformed()
    return Network(
        first, validation.name(name), found, _node(creator), validation.boolean(internal),
        validation.labels(labels), validation.boolean(isolate_subnets),
    )  # fmt: skip


def _endpoint(fields: Any) -> Endpoint:
    endpoint_id, vni, name, mac, ips, aliases, labels = validation.array(fields, 7)
    addresses = tuple(
        validation.ip(item) for item in validation.items(ips, limits.SUBNET_COUNT_MAX)
    )
    hardware = Mac(validation.octets(mac, 6))
    if not addresses or hardware[0] & 1 or not any(hardware):
        validation.refuse_malformed()  # a multicast or zero MAC would program a flood row
    return Endpoint(
        validation.octets(endpoint_id, 8), _vni(vni), validation.name(name), hardware, addresses,
        tuple(validation.name(item) for item in validation.items(aliases, limits.ALIAS_COUNT_MAX)),
        shared(validation.labels(labels)),
    )  # fmt: skip


def _grant(fields: Any) -> Grant:
    vni, first, last, grantee, generation, request_id = validation.array(fields, 6)
    low, high = validation.ip(first), validation.ip(last)
    if len(low) != len(high) or high < low:
        validation.refuse_malformed()
    return Grant(
        _vni(vni), low, high, _node(grantee),
        validation.integer(generation, limits.GRANT_GENERATION_MAX),
        validation.octets(request_id, 8),
    )  # fmt: skip


def _participation(fields: Any) -> Participation:
    vni, forwards = validation.array(fields, 2)
    return Participation(_vni(vni), validation.boolean(forwards))


def _forgotten(fields: Any) -> ForgottenNode:
    node_id, warrant = validation.array(fields, 2)
    if warrant != b"":
        validation.octets(warrant, _SIGNATURE_SIZE)
    return ForgottenNode(_node(node_id), warrant)


def _removed(fields: Any) -> RemovedNetwork:
    vni, creator = validation.array(fields, 2)
    return RemovedNetwork(_vni(vni), _node(creator))


def _reclaim_statement(fields: Any) -> ReclaimStatement:
    node_id, reclaiming_node, part, parts, kept = validation.array(fields, 5)
    count = validation.integer(parts, limits.KEPT_RECORDS_MAX, 1)
    runs = []
    for item in validation.items(kept, limits.KEPT_PER_RECORD_MAX):
        vni, first, last = validation.array(item, 3)
        runs.append(KeptRun(_vni(vni), validation.ip(first), validation.ip(last)))
    return ReclaimStatement(
        _node(node_id),
        _node(reclaiming_node),
        validation.integer(part, count - 1),
        count,
        tuple(runs),
    )


def _authority_holder(fields: Any) -> AuthorityHolderRecord:
    (proof,) = validation.array(fields, 1)
    return AuthorityHolderRecord(validation.octets(proof, _SIGNATURE_SIZE))


def _join_token(fields: Any) -> JoinToken:
    token_id, join_key, verifier, label, created_s, expires_s, uses, signature = validation.array(
        fields, 8
    )
    return JoinToken(
        validation.octets(token_id, limits.TOKEN_ID_SIZE), validation.octets(join_key, 32),
        validation.octets(verifier, 32),
        validation.text(label),
        validation.integer(created_s, 2**40),
        validation.integer(expires_s, 2**40), validation.integer(uses, 2**32),
        validation.octets(signature, _SIGNATURE_SIZE),
    )  # fmt: skip


def _revocation(fields: Any) -> TokenRevocation:
    token_id, signature = validation.array(fields, 2)
    return TokenRevocation(
        validation.octets(token_id, limits.TOKEN_ID_SIZE),
        validation.octets(signature, _SIGNATURE_SIZE),
    )


def _admission(fields: Any) -> Admission:
    token_id, node_id = validation.array(fields, 2)
    return Admission(validation.octets(token_id, limits.TOKEN_ID_SIZE), _node(node_id))


def _custom_record(fields: Any) -> CustomRecord:
    name, ips = validation.array(fields, 2)
    addresses = tuple(
        validation.ip(item) for item in validation.items(ips, limits.CUSTOM_RECORD_IPS_MAX)
    )
    if not addresses:
        validation.refuse_malformed()
    return CustomRecord(validation.name(name), addresses)


def key_id(value: Any) -> KeyId:
    """Return the id of a cluster key."""
    generation, mark = validation.array(value, 2)
    return KeyId(
        validation.integer(generation, limits.KEY_GENERATION_MAX), validation.integer(mark, 0xFFFF)
    )


def _key_state(fields: Any) -> KeyState:
    newest, sealing = validation.array(fields, 2)
    found = KeyState(key_id(newest), key_id(sealing))
    if found.sealing > found.newest:
        validation.refuse_malformed()
    return found


def _declared_object(fields: Any) -> DeclaredObject:
    kind, name, version, body = validation.array(fields, 4)
    return DeclaredObject(
        validation.integer(kind, limits.DECLARED_KIND_MAX, 1),
        validation.name(name),
        validation.integer(version, limits.DECLARED_VERSION_MAX, 1),
        validation.octets_to(body, limits.DECLARED_BODY_SIZE_MAX),
    )


def _backend_health(fields: Any) -> BackendHealth:
    endpoint_id, service, is_healthy = validation.array(fields, 3)
    return BackendHealth(
        validation.octets(endpoint_id, 8), validation.name(service), validation.boolean(is_healthy)
    )


_DECODERS: dict[int, Callable[[Any], Value]] = {
    1: _network,
    2: _endpoint,
    3: _grant,
    4: _participation,
    5: _forgotten,
    7: _removed,
    8: _reclaim_statement,
    9: _authority_holder,
    10: _join_token,
    11: _revocation,
    12: _admission,
    13: _custom_record,
    14: _key_state,
    15: _declared_object,
    16: _backend_health,
}


def decode_value(tag: Any, fields: Any) -> Value:
    """Return the value for a tag and fields."""
    decoder = _DECODERS.get(validation.integer(tag, 255))
    if decoder is None:
        validation.refuse_malformed()
    return decoder(fields)


def encode_entry(entry: Entry, after: int) -> list[Any]:
    """Return an entry as `[version - after, tag, identity, fields or nil]`."""
    value = entry.value
    kind, identity = entry.key
    if value is None:
        return [entry.version - after, TAGS[kind], identity, None]
    tag, fields = encode_value(value)
    return [entry.version - after, tag, identity, fields]


def decode_entry(raw: Any, after: int) -> Entry:
    """Return an entry; its key must be that of its value."""
    step, tag, identity, fields = validation.array(raw, 4)
    version = after + validation.integer(step, 2**32, 1)
    kind = KINDS.get(validation.integer(tag, 255))
    if kind is None:
        validation.refuse_malformed()
    key: Key = (kind, validation.octets_to(identity, _IDENTITY_SIZE_MAX))
    if fields is None:
        return Entry(version, key, None)
    value = decode_value(tag, fields)
    own_key = key_of(value)
    if own_key != key:
        validation.refuse_malformed()
    return Entry(version, own_key, value)  # shares its bytes with the value
