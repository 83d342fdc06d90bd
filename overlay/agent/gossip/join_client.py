"""Asking to be let in: a host with a token, before it is member of anything.

Owns: the socket of an application, whom it knocks at, how long, and what is said when nobody
lets it in. Must not know: HTTP, what follows once it is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass

from overlay import limits
from overlay.agent.gossip import join_request
from overlay.agent.gossip.join_request import JoinSeed
from overlay.agent.gossip.transport import bind_socket
from overlay.errors import ConflictError, ForbiddenError, RemoteError, TimedOutError
from overlay.model import Ip, ip_text
from overlay.wire.admission import JoinGrant, JoinInitiator, JoinRefusal
from overlay.wire.codec.datagram import Datagram
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import Token

_NEW_TOKEN = "On a host that holds the authority: sudo overlayd token create"  # noqa: S105 a hint
_REFUSED: dict[JoinRefusal, tuple[str, str, str]] = {  # what, why, what to do next
    JoinRefusal.EXPIRED: ("the token has expired", "", _NEW_TOKEN),
    JoinRefusal.USED_UP: (
        "the token is used up",
        "it let in as many hosts as it was made for",
        _NEW_TOKEN,
    ),
    JoinRefusal.REVOKED: ("the token was revoked", "", _NEW_TOKEN),
    JoinRefusal.BARRED: (
        "this host's identity is barred from the cluster",
        "it was forgotten there ('overlayd forget')",
        "To come back as a new node: sudo overlayd reset, then join again",
    ),
}


@dataclass(frozen=True, slots=True)
class JoinResult:
    """How a host got in: what it was given, and all the places that may know it by now."""

    welcome: JoinGrant
    members: tuple[JoinSeed, ...]


class JoinAttempt:
    """One try to be let in, from one underlay address."""

    def __init__(
        self, identity: Identity, token: Token, name: str, address: Ip, seeds: Sequence[JoinSeed]
    ) -> None:
        self._applicant = JoinInitiator(
            identity, token, name=name, address=address, random_bytes=os.urandom
        )
        self._seeds = seeds
        self._port = token.gossip_port
        self._socket = bind_socket((address, token.gossip_port))

    async def run(self, timeout_s: float = limits.JOIN_TIMEOUT_S) -> JoinResult:
        """Knock until a holder of the authority lets us in.

        Raises ForbiddenError for a refusal, ConflictError where no holder answers, TimedOutError
        for silence.
        """
        loop = asyncio.get_running_loop()
        started = knock_at = loop.time()
        try:
            while self._applicant.grant is None:
                now = loop.time()
                if self._applicant.refusal is not None:
                    what, why, hint = _REFUSED[self._applicant.refusal]
                    raise ForbiddenError(what, why=why, hint=hint)
                if now >= started + timeout_s:
                    raise self._no_answer_error(now - started)
                if now >= knock_at:
                    knock_at = now + join_request.HELLO_RETRY_INTERVAL_S
                    self._send_hello()
                await self._take(knock_at - now)
            return JoinResult(self._applicant.grant, self._members())
        finally:
            self._socket.close()

    def _send_hello(self) -> None:
        holders = list(self._applicant.holders)
        places = dict.fromkeys([(seed.address, seed.port) for seed in self._seeds] + holders)
        for address, port in places:
            self._send([self._applicant.hello(address, port)])

    async def _take(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError, OSError, RemoteError):
            # An OSError is a queued ICMP error: a place where nobody listens (yet).
            async with asyncio.timeout(wait_s):
                data = await loop.sock_recv(self._socket, limits.DATAGRAM_SIZE_MAX + 1)
            self._send(self._applicant.open(data))

    def _send(self, datagrams: Sequence[Datagram]) -> None:
        for datagram in datagrams:
            target = (str(ipaddress.ip_address(bytes(datagram.address))), datagram.port)
            with contextlib.suppress(OSError):
                self._socket.sendto(datagram.data, target)

    def _members(self) -> tuple[JoinSeed, ...]:
        cards = self._applicant.answered.values()
        return tuple(JoinSeed(card.name, card.address, card.gossip_port) for card in cards)

    def _no_answer_error(self, waited_s: float) -> TimedOutError | ConflictError:
        answered = sorted(card.name for card in self._applicant.answered.values())
        if not answered:
            return join_request.no_answer_error(self._seeds, waited_s)
        holders = [ip_text(address) for address, _ in self._applicant.holders]
        known = f"those known are at {', '.join(sorted(holders))}" if holders else "none is known"
        return ConflictError(
            f"{', '.join(answered)} answered, but no host that can admit a new one",
            why=f"the authority's holders are down or out of reach; {known}",
            hint="'overlayd members' shows who holds it; start one of them. Several holders avoid "
            "this: overlayd promote NODE",
        )
