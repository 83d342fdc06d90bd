"""Ask several resolvers until one has an answer, as a good stub resolver does.

A resolver that fails (REFUSED, SERVFAIL, unreachable) is followed by the next at once, a slow one
after a short wait; silent ones are remembered and asked last. All this ends before the client gives
up: glibc waits 5 s per try, musl 5 s for all tries (resolv.conf(5)), and 2 s with the options that
bare containers have. Does not: know sockets (`upstream`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from dnslib import RCODE

from overlay import limits
from overlay.agent.dns import upstream

PATIENCE_S = 4.5  # of one query
NEXT_AFTER_S = 0.4  # until the next resolver is asked, too
SILENT_AFTER_S = 2.0  # until a resolver counts as silent, though another one has answered
RETRY_S = 30.0  # until one query tries a silent resolver in its place again
_TC, _RCODE = 0x02, 0x0F  # in the third and fourth byte of a message (RFC 1035 section 4.1.1)


class ResolverPool:
    """All resolvers that this host asks, and which of them were silent lately."""

    def __init__(self) -> None:
        self._silent: dict[str, float] = {}  # when each is tried in its place again: loop's clock
        self._heard: dict[str, float] = {}  # when each answered last
        self._outrun: set[asyncio.Task[bytes | None]] = set()  # attempts nobody waits for

    async def ask(self, resolvers: Iterable[str], raw: bytes, *, by_tcp: bool) -> bytes | None:
        """Return the first useful answer, or else the first failure; None if nobody answers.

        An earlier resolver may know names that a later one does not. So a later one's answer that
        a name does not exist waits for the earlier ones, but only as long as NEXT_AFTER_S.
        """
        loop = asyncio.get_running_loop()
        waiting = deque(self._in_order(resolvers))
        running: list[asyncio.Task[bytes | None]] = []
        earlier: list[asyncio.Task[bytes | None]] = []  # than the one with the answer `empty`
        empty = failure = None
        now_s = next_s = loop.time()
        end_s = now_s + PATIENCE_S
        try:
            while (waiting or running) and now_s < end_s:
                if waiting and empty is None and (now_s >= next_s or not running):
                    attempt = self._attempt(waiting.popleft(), raw, by_tcp=by_tcp)
                    running.append(loop.create_task(attempt))
                    next_s = now_s + NEXT_AFTER_S
                until_s = end_s if empty is None and not waiting else min(next_s, end_s)
                done, _ = await asyncio.wait(
                    running, timeout=until_s - now_s, return_when=asyncio.FIRST_COMPLETED
                )
                now_s = loop.time()
                for task in [task for task in running if task in done]:
                    position = running.index(task)
                    running.remove(task)
                    answer = task.result()
                    if answer is None or _is_failure(answer):
                        failure = failure or answer
                        next_s = now_s if empty is None else next_s
                    elif _is_useful(answer):
                        return answer
                    elif empty is None:
                        empty, earlier, next_s = answer, running[:position], now_s + NEXT_AFTER_S
                if empty is not None and (now_s >= next_s or not set(earlier) & set(running)):
                    return empty
            return empty or failure
        finally:
            self._leave(running)

    def _in_order(self, resolvers: Iterable[str]) -> list[str]:
        """Return the resolvers in the order in which to ask them: silent ones last."""
        now_s = asyncio.get_running_loop().time()
        first: list[str] = []
        last: list[str] = []
        for resolver in dict.fromkeys(resolvers):
            due_s = self._silent.get(resolver, 0.0)
            (last if due_s > now_s else first).append(resolver)
            if 0.0 < due_s <= now_s:  # this query finds out; the others need not wait for it
                self._silent[resolver] = now_s + RETRY_S
        return first + last

    async def _attempt(self, resolver: str, raw: bytes, *, by_tcp: bool) -> bytes | None:
        """Ask one resolver, and note whether it was silent."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            answer = await upstream.query(resolver, raw, by_tcp=by_tcp)
        except asyncio.CancelledError:
            if loop.time() - begun_s >= SILENT_AFTER_S:
                self._note_silent(resolver, begun_s)
            raise
        if answer is None:
            self._note_silent(resolver, begun_s)
        else:
            self._heard[resolver] = loop.time()
            self._silent.pop(resolver, None)
        return answer

    def _note_silent(self, resolver: str, since_s: float) -> None:
        """Note that a resolver is silent, unless it has answered another query meanwhile.

        Otherwise a container could change the order for all, with names that nobody answers for.
        """
        if self._heard.get(resolver, since_s) > since_s:
            return
        now_s = asyncio.get_running_loop().time()
        in_use = {each: due_s for each, due_s in self._silent.items() if due_s > now_s - RETRY_S}
        self._silent = {**in_use, resolver: now_s + RETRY_S}
        self._heard = {each: at_s for each, at_s in self._heard.items() if at_s > now_s - RETRY_S}

    def _leave(self, running: Iterable[asyncio.Task[bytes | None]]) -> None:
        """Let attempts that were outrun go on until it is known whether they are silent."""
        for task in running:
            if len(self._outrun) >= limits.DNS_FORWARDS_MAX:
                task.cancel()
                continue
            self._outrun.add(task)
            task.add_done_callback(self._outrun.discard)
            asyncio.get_running_loop().call_later(SILENT_AFTER_S, task.cancel)


def _is_failure(answer: bytes) -> bool:
    """Return whether an answer says nothing about the name, so that another resolver may know."""
    return answer[3] & _RCODE not in (RCODE.NOERROR, RCODE.NXDOMAIN)


def _is_useful(answer: bytes) -> bool:
    """Return whether an answer has records, or more of them by TCP."""
    return bool(answer[2] & _TC) or answer[6:8] != b"\0\0"
