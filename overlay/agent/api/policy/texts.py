"""Peers and ports of policies as texts of a request, and the errors about them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from overlay import limits
from overlay.agent.records.known_names import meant_text
from overlay.core.policy.policy import (
    Peer,
    PeerKind,
    PolicyAction,
    PortRange,
    parse_peer,
    parse_port_range,
)
from overlay.errors import UsageError
from overlay.model import Network, has_default_deny, valid_name

_SUCH_AS = "Such as label=app=web, name=web1, host, world, cidr:10.0.0.0/8 or network:red"


def default_of(network: Network) -> PolicyAction:
    """Return what happens to connections that no policy is about."""
    return "deny" if has_default_deny(network) else "allow"


def peers(texts: Iterable[str], field: str) -> tuple[Peer, ...]:
    """Return peers, each once and in order; raises UsageError."""
    found = {_peer(text, field) for text in texts}
    return tuple(sorted(found, key=str))


def port_ranges(texts: Iterable[str]) -> tuple[PortRange, ...]:
    """Return ranges of ports, each once and in order; raises UsageError."""
    found = {_port_range(text) for text in texts}
    return tuple(sorted(found, key=lambda each: (each.protocol, each.first, each.last)))


def port_range(text: str) -> PortRange:
    """Return a protocol and port that a connection may have; raises UsageError for a range."""
    found = _port_range(f"{text}/tcp" if text.isdecimal() else text)
    if found.first != found.last and "-" in text:
        raise UsageError(
            f"port: {text!r} is several ports",
            why="a connection has one",
            hint=f"Such as {found.first}/{found.protocol}",
            field="port",
        )
    return found


def _peer(text: str, field: str) -> Peer:
    try:
        found = parse_peer(text)
    except ValueError as error:
        why = str(error) if text.startswith(PeerKind.CIDR.value) else ""
        raise UsageError(
            f"{field}: {text!r} is not a valid peer", why=why, hint=_meant(text), field=field
        ) from error
    if found.kind in (PeerKind.NAME, PeerKind.NETWORK) and not valid_name(found.key):
        raise UsageError(f"{field}: {found.key!r} is not a valid name", hint=_SUCH_AS, field=field)
    if len((found.key + (found.value or "")).encode()) > limits.LABEL_SIZE_MAX:
        raise UsageError(
            f"{field}: {text!r} is too long",
            why=f"a label has at most {limits.LABEL_SIZE_MAX} bytes",
            field=field,
        )
    return found


def _meant(text: str) -> str:
    """Return the peer that a text may mean, as a hint."""
    bare = text.removeprefix(PeerKind.CIDR.value)
    try:
        return f"Did you mean cidr:{ipaddress.ip_network(bare, strict=False)}?"
    except ValueError:
        pass
    for kind in (PeerKind.LABEL, PeerKind.NAME, PeerKind.NETWORK):
        word = kind.value[:-1]
        if text.startswith((f"{word}:", f"{word}=")) and text[len(word) + 1 :]:
            return f"Did you mean {kind.value}{text[len(word) + 1 :]}?"
    meant = meant_text(text, (PeerKind.HOST.value, PeerKind.WORLD.value))
    if meant:
        return meant
    if "=" in text and not text.startswith("="):
        return f"Did you mean label={text}?"
    return _SUCH_AS


def _port_range(text: str) -> PortRange:
    try:
        return parse_port_range(text)
    except ValueError as error:
        hint = "Such as 5432/tcp, 8000-8100/udp, tcp or icmp"
        for protocol in ("tcp", "udp"):
            try:
                found = parse_port_range(f"{text}/{protocol}")
            except ValueError:
                break
            hint = f"Did you mean {found}?"
            break
        raise UsageError(
            f"ports: {text!r} is not a valid port", hint=hint, field="ports"
        ) from error
