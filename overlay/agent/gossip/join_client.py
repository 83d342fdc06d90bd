"""Join handshake, applicant side: a host with a token requests admission to a cluster.

Owns: the socket of a join attempt, the addresses it contacts, its duration, and the errors. Does
not: know HTTP, or what follows an admission.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from overlay import limits
from overlay.agent.gossip import join_request
from overlay.agent.gossip.join_request import JoinSeed
from overlay.agent.gossip.transport import bind_socket
from overlay.errors import ConflictError, ForbiddenError, RemoteError, TimedOutError
from overlay.model import Ip, ip_text
from overlay.wire.admission.initiator import JoinInitiator
from overlay.wire.admission.messages import JoinGrant, JoinRefusal
from overlay.wire.codec.datagram import COOKIE, Datagram, UdpEndpoint, read_kind
from overlay.wire.handshake.cookies import CookieJar, receiver_key
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import Token

_ASK_A_HOLDER = (
    "On a host that holds the authority ('overlayd authority ls' on any member): sudo overlayd "
    "token create"
)
_REFUSED: dict[JoinRefusal, tuple[str, str, str]] = {  # what, why, what to do next
    JoinRefusal.EXPIRED: ("the token has expired", "", _ASK_A_HOLDER),
    JoinRefusal.USED_UP: (
        "the token is used up",
        "it has admitted the number of hosts it was created for",
        _ASK_A_HOLDER,
    ),
    JoinRefusal.REVOKED: ("the token was revoked", "", _ASK_A_HOLDER),
    JoinRefusal.BANNED: (
        "this host's identity is banned from the cluster",
        "it was forgotten there ('overlayd forget')",
        "To come back as a new node: sudo overlayd reset, then join again",
    ),
}


class NoHolderError(ConflictError):
    """Members answered, but none that can admit a host."""


@dataclass(frozen=True, slots=True)
class JoinResult:
    """A successful join: the grant, and the members that may know this host by now.

    `address` is this host's underlay address from which it was admitted; `via` is the peer of those
    named that admitted it or, if a holder did to which they referred, the first that answered.
    """

    welcome: JoinGrant
    members: tuple[JoinSeed, ...]
    address: Ip
    via: JoinSeed
    clock_ahead_s: float  # of the holder's clock, in seconds; negative: behind


class JoinAttempt:
    """One attempt to join, from one underlay address."""

    def __init__(
        self, identity: Identity, token: Token, name: str, address: Ip, seeds: Sequence[JoinSeed]
    ) -> None:
        self._applicant = JoinInitiator(
            identity,
            token,
            name=name,
            address=address,
            random_bytes=os.urandom,
            now_s=time.time(),
        )
        self._jar = CookieJar()
        self._cluster_key = receiver_key(token.cluster_id)
        self._seeds = seeds
        self._name = name
        self._address = address
        self._socket = bind_socket((address, token.gossip_port))

    async def run(self, timeout_s: float | None = None) -> JoinResult:
        """Send hellos until a holder of the authority admits this host.

        Raises ForbiddenError if it refuses, ConflictError if the name is taken or this host's clock
        is too far behind, NoHolderError if only members without the authority answer, TimedOutError
        if nobody answers within `timeout_s` (default: JOIN_TIMEOUT_S).
        """
        timeout_s = limits.JOIN_TIMEOUT_S if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        started = hello_at = loop.time()
        try:
            while self._applicant.grant is None:
                now = loop.time()
                if self._applicant.clock_ahead_s < 0:
                    raise join_request.clock_error(self._applicant.clock_ahead_s)
                if self._applicant.refusal is not None:
                    raise self._refused_error(self._applicant.refusal)
                if now >= started + timeout_s:
                    raise self._no_answer_error(now - started)
                if now >= hello_at:
                    hello_at = now + join_request.HELLO_RETRY_INTERVAL_S
                    self._send_hello()
                await self._receive(hello_at - now)
            ahead_s = self._applicant.clock_ahead_s
            if ahead_s < -limits.CERTIFICATE_EARLY_S:
                raise join_request.clock_error(ahead_s)
            return JoinResult(
                self._applicant.grant,
                self._members(),
                self._address,
                self._joined_via(),
                ahead_s,
            )
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send_hello(self) -> None:
        holders = list(self._applicant.holders)
        places = dict.fromkeys([(seed.address, seed.port) for seed in self._seeds] + holders)
        for address, port in places:
            self._send([self._applicant.hello(address, port)])

    async def _receive(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError, OSError, RemoteError):
            # An OSError is a queued ICMP error: nothing listens at that address yet.
            async with asyncio.timeout(wait_s):
                data, source = await loop.sock_recvfrom(self._socket, limits.DATAGRAM_SIZE_MAX + 1)
            if read_kind(data) == COOKIE:
                self._use_cookie(data, source)
            else:
                self._send(self._applicant.open(data))

    def _use_cookie(self, data: bytes, source: tuple[str, int]) -> None:
        """Repeat a hello with the cookie that a busy member asks for."""
        place = UdpEndpoint(Ip(ipaddress.ip_address(source[0].partition("%")[0]).packed), source[1])
        if self._jar.accept(place, data, asyncio.get_running_loop().time()):
            self._send([self._applicant.hello(*place)])

    def _send(self, datagrams: Sequence[Datagram]) -> None:
        now = asyncio.get_running_loop().time()
        for address, port, data in datagrams:
            target = (str(ipaddress.ip_address(bytes(address))), port)
            protected = self._jar.protect(UdpEndpoint(address, port), self._cluster_key, data, now)
            with contextlib.suppress(OSError):
                self._socket.sendto(protected, target)

    def _members(self) -> tuple[JoinSeed, ...]:
        cards = self._applicant.answered.values()
        return tuple(JoinSeed(card.name, card.address, card.gossip_port) for card in cards)

    def _joined_via(self) -> JoinSeed:
        """Return the named peer that admitted this host, else the first one that answered."""
        answered = self._applicant.answered
        holder = [
            card for node_id, card in answered.items() if node_id == self._applicant.granted_by
        ]
        for card in [*holder, *answered.values()]:
            for seed in self._seeds:
                if (seed.address, seed.port) == (card.address, card.gossip_port):
                    return seed
        return self._seeds[0]  # it answers from another address than the one named

    def _refused_error(self, refusal: JoinRefusal) -> ForbiddenError | ConflictError:
        if refusal is JoinRefusal.NAME_TAKEN:
            return join_request.name_taken_error(self._name)
        what, why, hint = _REFUSED[refusal]
        return ForbiddenError(what, why=why, hint=hint)

    def _no_answer_error(self, waited_s: float) -> TimedOutError | NoHolderError:
        answered = sorted(card.name for card in self._applicant.answered.values())
        if not answered:
            return join_request.no_answer_error(self._seeds, waited_s)
        holders = [ip_text(address) for address, _ in self._applicant.holders]
        known = f"known holders: {', '.join(sorted(holders))}" if holders else "none is known"
        return NoHolderError(
            f"{', '.join(answered)} answered, but no host that can admit a new one",
            why=f"the holders of the authority are down or unreachable; {known}",
            hint="'overlayd authority ls' on that member shows them: start one. If it lists none, "
            "import an exported copy there: sudo overlayd authority import FILE",
        )


async def run_attempts(attempts: Sequence[JoinAttempt], seeds: Sequence[JoinSeed]) -> JoinResult:
    """Run attempts from several underlay addresses at a time; return the first that succeeds.

    Raises the error of one that is refused as soon as it is. When all have failed otherwise, raises
    NoHolderError if a member answered one of them, else TimedOutError, which names `seeds`.
    """
    running = [asyncio.create_task(attempt.run()) for attempt in attempts]
    started = asyncio.get_running_loop().time()
    answered: list[NoHolderError] = []
    try:
        for finished in asyncio.as_completed(running):
            try:
                return await finished
            except TimedOutError:
                continue
            except NoHolderError as error:
                answered.append(error)
        if answered:
            raise answered[0]
        waited_s = asyncio.get_running_loop().time() - started
        raise join_request.no_answer_error(seeds, waited_s)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
