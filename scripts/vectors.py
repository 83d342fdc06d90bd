"""Write docs/vectors/wire.json: the worked example of docs/PROTOCOL.md.

Run it only when the wire format changes on purpose; the tests read the file in both directions.
All keys and random bytes are fixed, so the output is always the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from overlay.core.capture.classic_bpf import ALL, pack
from overlay.core.declared.kinds import POLICY_KIND, SERVICE_KIND
from overlay.core.policy.policy import Policy, PortRange, parse_peer
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CapturedFrame,
    CaptureRequest,
    CaptureState,
    CaptureStatus,
    Place,
    PlacedSighting,
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
    Ping,
    PingRequest,
    Pull,
    Rumour,
    Rumours,
    Versions,
)
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Admission,
    BackendHealth,
    CustomRecord,
    DeclaredObject,
    Entry,
    JoinToken,
    KeyState,
    Participation,
    Scope,
    Value,
    key_of,
)
from overlay.core.protocol.trace import Finding, Outcome, Phase, Step, TraceAnswer, TraceRequest
from overlay.core.services.service import HealthCheck, Service, ServiceIngress, ServicePort
from overlay.model import (
    Card,
    Certificate,
    Endpoint,
    Grant,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    parse_ip,
)
from overlay.wire.admission.initiator import JoinInitiator
from overlay.wire.admission.messages import JoinGrant, JoinRequest
from overlay.wire.admission.responder import JoinResponder
from overlay.wire.codec.datagram import UdpEndpoint
from overlay.wire.codec.messages import MsgpackCodec
from overlay.wire.codec.policies import encode_policy
from overlay.wire.codec.services import encode_service
from overlay.wire.codec.session_header import data_header
from overlay.wire.handshake.cookies import CookieJar, CookieMaker, receiver_key
from overlay.wire.handshake.first_contact import FirstContact
from overlay.wire.handshake.handshake_maker import HandshakeMaker
from overlay.wire.handshake.hello import NO_PROCESS, Join, Statement, join_body, statement_body
from overlay.wire.handshake.key_transfer import key_body
from overlay.wire.handshake.noise import nonce
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import ClusterKey, Keyring
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token
from overlay.wire.session.frames import FrameType, pack_frame

PATH = Path(__file__).parent.parent / "docs" / "vectors" / "wire.json"
AUTHORITY = Authority(bytes([9]) * 32)
ANCHOR = TrustAnchor(AUTHORITY.anchor)
CLUSTER_ID = ANCHOR.cluster_id
NOW_S = 1_760_000_000
SECRET = bytes(range(32))
PROCESSES = (b"process1", b"process2")
INDEXES = (0x11111111, 0x22222222)
TOKEN = Token(AUTHORITY.anchor, b"token-id", bytes(range(16)), 7948, 4789)


def identity(number: int) -> Identity:
    """Return the fixed identity of host vm`number`."""
    return Identity(bytes([number]) * 32, bytes([number + 16]) * 32)


def address(number: int) -> Ip:
    """Return the underlay address of host vm`number`."""
    return parse_ip(f"192.168.56.{10 + number}")


def certificate(number: int) -> Certificate:
    """Return the certificate of host vm`number`."""
    own = identity(number)
    return AUTHORITY.sign_certificate(
        own.sign_public, own.seal_public, f"vm{number}", address(number), NOW_S
    )


def cluster_key() -> ClusterKey:
    """Return the cluster's first key."""
    return AUTHORITY.make_key(0, SECRET, NOW_S)


def card(number: int) -> Card:
    """Return the fixed card of host vm`number`."""
    own = identity(number)
    return KeySigner(own, ANCHOR).issue_card(
        Card(
            node_id=own.node_id,
            name=f"vm{number}",
            sign_key=own.sign_public,
            seal_key=own.seal_public,
            address=address(number),
            gossip_port=7948,
            epoch=1,
            underlay_mtu=1500,
            software="0.1.0",
            certificate=certificate(number),
        )
    )


def invitation() -> JoinToken:
    """Return the record of the example's token."""
    return AUTHORITY.sign_token(
        JoinToken(
            TOKEN.token_id, TOKEN.join_key, TOKEN.verifier, "rack 7", NOW_S, NOW_S + 86400, 3, b""
        )
    )


def values() -> list[Value]:
    """Return one value of each kind that the example uses."""
    vni = Vni(8388865)
    ip = parse_ip("10.32.0.2")
    auxiliary = (("nas", parse_ip("10.32.0.9")),)
    subnet = Subnet(
        parse_ip("10.32.0.0"),
        16,
        parse_ip("10.32.0.1"),
        (parse_ip("10.32.64.0"), 18),
        auxiliary,
        24,
    )
    first, last = parse_ip("10.32.1.0"), parse_ip("10.32.1.255")
    return [
        Network(vni, "blue", (subnet,), card(1).node_id),
        Participation(vni, forwards=True),
        Endpoint(b"endpoint", vni, "web", mac_for(vni, ip), (ip,), ("www",)),
        Grant(vni, first, last, card(2).node_id, 1, b"request1"),
        CustomRecord("database", (Ip(bytes([192, 168, 7, 20])),)),
    ]


def health_values() -> list[Value]:
    """Return what a host says of a container that it checks."""
    return [BackendHealth(b"endpoint", "web", is_healthy=True)]


def admission_values() -> list[Value]:
    """Return one value of each kind that admission uses."""
    return [
        AUTHORITY.sign_holder(card(1).node_id),
        invitation(),
        AUTHORITY.sign_revocation(TOKEN.token_id),
        Admission(TOKEN.token_id, card(2).node_id),
        AUTHORITY.sign_forgotten(card(2).node_id),
        KeyState(cluster_key().id, cluster_key().id),
    ]


def declared_values() -> list[Value]:
    """Return declared objects, and one that is removed."""
    service = Service(
        name="web",
        vni=Vni(8388865),
        ips=(parse_ip("10.32.0.100"),),
        ports=(ServicePort(80, 8080, "tcp", "http"),),
        selector=(("app", "web"),),
        weights=(("web1", 2),),
        check=HealthCheck("http", "/health", 2.0, 1.0, 3),
        ingress=(ServiceIngress(8080, 80, sources=(ip_network("10.0.0.0/16"),)),),
    )
    peers = ("label=app=web", "label=admin", "host", "world", "cidr:10.0.0.0/8", "network:red")
    policy = Policy(
        name="db",
        vni=Vni(8388865),
        action="allow",
        sources=tuple(map(parse_peer, peers)),
        destinations=(parse_peer("name=db1"),),
        ports=(PortRange("tcp", 5432, 5432), PortRange("udp", 8000, 8100), PortRange("icmp")),
        log=True,
        labels=(("team", "shop"),),
    )
    return [
        DeclaredObject(SERVICE_KIND, "web", 1, encode_service(service)),
        DeclaredObject(SERVICE_KIND, "shop", 7, b""),
        DeclaredObject(POLICY_KIND, "db", 2, encode_policy(policy)),
    ]


def messages() -> dict[str, Message]:
    """Return one message of each kind, as vm1 sends it to vm2."""
    signer = KeySigner(identity(1), ANCHOR)
    found = values()
    cluster = [Entry(n + 1, key_of(value), value) for n, value in enumerate(found[:2])]
    blue = [Entry(n + 1, key_of(value), value) for n, value in enumerate(found[2:])]
    told = [Entry(n + 3, key_of(value), value) for n, value in enumerate(admission_values())]
    declared = [Entry(n + 9, key_of(value), value) for n, value in enumerate(declared_values())]
    health = [Entry(n + 4, key_of(value), value) for n, value in enumerate(health_values())]
    segments = (
        signer.issue_segment(CLUSTER_SCOPE, 0, 0, 2, cluster),
        signer.issue_segment(Scope(8388865), 0, 0, len(blue), blue),
    )
    one, two = card(1).node_id, card(2).node_id
    version = LogVersion(one, Scope(8388865), 2, 1)
    return {
        "ping": Ping(7, 2**100 + 5, 12),
        "ack": Ack(7, 2**100 + 5, 1 << 20),
        "ping-request": PingRequest(8, two),
        "nack": Nack(8),
        "rumours": Rumours((Rumour(two, 1 << 20, MemberState.SUSPECT, one),)),
        "cards": Cards((card(1),)),
        "delta": Delta(segments, confirm=True),
        "delta-of-admission": Delta(
            (signer.issue_segment(CLUSTER_SCOPE, 0, 2, 2 + len(told), told),)
        ),
        "delta-of-declared": Delta(
            (
                signer.issue_segment(CLUSTER_SCOPE, 0, 8, 8 + len(declared), declared),
                signer.issue_segment(Scope(8388865), 0, 3, 4, health),
            )
        ),
        "buckets": Buckets(tuple(range(64))),
        "versions": Versions((0, 63), (version,), answer=True),
        "pull": Pull((version,)),
        "confirm": Confirm((version,)),
        "grant-request": GrantRequest(
            b"request1", 8388865, parse_ip("10.32.0.0"), 256, exact=False
        ),
        "grant-refusal": GrantRefusal(b"request1", "exhausted", 0),
        "certificate-request": CertificateRequest(),
        "certificate-renewal": CertificateRenewal(certificate(1)),
        "authority-handover": AuthorityHandover(AUTHORITY.to_bytes()),
        "trace-request": TraceRequest(
            b"request1", 8388865, b"endpoint", b"peersend", parse_ip("10.32.0.3"), 6, 80
        ),
        "trace-request-opening": TraceRequest(
            b"request1", 8388865, b"peersend", b"endpoint", parse_ip("10.32.0.2"), 6, 0, 80
        ),
        "trace-answer": TraceAnswer(
            b"request1",
            0,
            1,
            (
                Finding(Phase.SEND, Step.PORT, Outcome.OK, "ve65 is up, on br0"),
                Finding(
                    Phase.RECEIVE,
                    Step.LISTENER,
                    Outcome.DROP,
                    "nothing listens on tcp port 80 in web",
                    "In web: ss -lntu",
                ),
            ),
        ),
        "check-request": CheckRequest(7),
        "check-answer": CheckAnswer(7, 1_700_000_000_123, 5),
        "capture-request": CaptureRequest(
            b"request1", 2, 8388865, (b"endpoint", b"peersend"), 960, pack(ALL), 5000
        ),
        "capture-answer": CaptureAnswer(
            b"request1",
            3,
            1_700_000_000_123_456_789,
            CaptureStatus(CaptureState.CAPTURING, 2, 4, "eth0"),
            (CapturedFrame(1_700_000_000_123_000_000, False, 98, b"the beginning"),),
        ),
        "sighting-request": SightingRequest(
            b"mark5678", 8388865, (b"endpoint", b"peersend"), parse_ip("10.32.0.3")
        ),
        "sighting-answer": SightingAnswer(
            b"mark5678",
            CaptureState.CAPTURING,
            (PlacedSighting(Place.CONTAINER, "eth0", is_outgoing=False),),
        ),
    }


def session() -> dict[str, Any]:
    """Return vm1's session with vm2, from the hello to the ping, and its inputs."""
    one, two = identity(1), identity(2)
    held = frozenset({cluster_key().id})
    statement = Statement(INDEXES[0], PROCESSES[0], card(1), held)
    answer = Statement(INDEXES[1], PROCESSES[1], card(2), held)
    ephemerals = (bytes([0xE1]) * 32, bytes([0xE2]) * 32)

    def drawn(ephemeral: bytes) -> Callable[[int], bytes]:
        return lambda _size: ephemeral

    makers = [
        HandshakeMaker(own, CLUSTER_ID, drawn(ephemeral))
        for own, ephemeral in zip((one, two), ephemerals, strict=True)
    ]
    to = UdpEndpoint(address(2), 7948)
    initiator, message = makers[0].hello(statement, card(2))
    hello = CookieJar().protect(to, receiver_key(two.seal_public), message, 0.0)
    opened = makers[1].open_hello(message)
    _, response = makers[1].response(
        opened.responder, answer, statement.number, (cluster_key().id, SECRET)
    )
    _, keys = makers[0].open_response(initiator, response, SECRET)
    payload = MsgpackCodec().encode(messages()["ping"])
    frame = pack_frame(FrameType.PAYLOAD, payload)
    header = data_header(INDEXES[1], 42)
    data = header + keys.sending.encrypt(nonce(42), frame, header)
    source = UdpEndpoint(address(1), 7948)
    cookies = CookieMaker(lambda size: bytes([0xC0]) * size)
    cookie = cookies.reply(receiver_key(two.seal_public), INDEXES[0], hello, source, 0.0)
    contact = FirstContact(
        one.node_id, CLUSTER_ID, Keyring([cluster_key()], cluster_key().id), sevens
    )
    join = join_body(Join(PROCESSES[0], NO_PROCESS, card(1)))
    cluster = receiver_key(CLUSTER_ID)
    first = CookieJar().protect(to, cluster, contact.seal(cluster_key().id, join), 0.0)
    return {
        "cluster_id": CLUSTER_ID.hex(),
        "cluster_key": SECRET.hex(),
        "mark": cluster_key().id.mark.to_bytes(2, "big").hex(),
        "indexes": list(INDEXES),
        "processes": [each.hex() for each in PROCESSES],
        "seal_private": [(bytes([number + 16]) * 32).hex() for number in (1, 2)],
        "ephemeral_private": [each.hex() for each in ephemerals],
        "statement": statement_body(statement).hex(),
        "answer": statement_body(answer).hex(),
        "payload": payload.hex(),
        "frame": frame.hex(),
        "join": join.hex(),
        "cookie": cookies.cookies(source, 0.0)[0].hex(),
        "datagrams": {
            "join": first.hex(),
            "hello": hello.hex(),
            "cookie": cookie.hex(),
            "response": response.hex(),
            "data": data.hex(),
        },
    }


def sevens(count: int) -> bytes:
    """Return bytes that stand for random ones."""
    return bytes([7]) * count


class AdmissionPolicy:
    """vm1's admission policy for the example's token."""

    def invitation(self, _token_id: bytes) -> JoinToken:
        """Return the token."""
        return invitation()

    def refusal(self, _invitation: JoinToken, _applicant: NodeId) -> None:
        """Refuse no applicant."""

    def holders(self) -> list[tuple[Ip, int]]:
        """Return another holder."""
        return [(address(3), 7948)]

    def authority(self) -> Authority:
        """Return the authority."""
        return AUTHORITY

    def admit(self, _invitation: JoinToken, request: JoinRequest) -> JoinGrant:
        """Certify the applicant."""
        return JoinGrant(AUTHORITY.sign_certificate(*request[:4], NOW_S), cluster_key())


def admission() -> dict[str, str]:
    """Return vm2's admission by vm1, with all random bytes 7."""
    responder = JoinResponder(identity(1), CLUSTER_ID, lambda: card(1), AdmissionPolicy(), sevens)
    applicant = JoinInitiator(
        identity(2),
        TOKEN,
        name="vm2",
        address=address(2),
        random_bytes=sevens,
        now_s=NOW_S,
    )
    knock = applicant.hello(address(1), 7948)
    (way,) = responder.open(knock.data)
    (request,) = applicant.open(way.data)
    (welcome,) = responder.open(request.data)
    applicant.open(welcome.data)
    said = {"knock": knock, "way": way, "request": request, "welcome": welcome}
    return {name: datagram.data.hex() for name, datagram in said.items()}


def vectors() -> dict[str, Any]:
    """Return all vectors as a JSON object."""
    codec = MsgpackCodec()
    return {
        "token": {
            "text": str(TOKEN),
            "cluster_id": TOKEN.cluster_id.hex(),
            "door": TOKEN.join_key.hex(),
            "ticket": TOKEN.ticket.hex(),
            "verifier": TOKEN.verifier.hex(),
        },
        "cards": {
            one.name: {
                "node_id": one.node_id.hex(),
                "raw": one.raw.hex(),
                "signature": one.signature.hex(),
            }
            for one in (card(1), card(2))
        },
        "messages": {name: codec.encode(message).hex() for name, message in messages().items()},
        "session": session(),
        "key": key_body(cluster_key()).hex(),
        "admission": admission(),
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {PATH}\n")
