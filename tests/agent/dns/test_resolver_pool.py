"""Several resolvers are asked as a good stub resolver does, within a client's patience."""

from __future__ import annotations

import asyncio
import selectors
import time

import pytest
from dnslib import RCODE, DNSRecord
from overlay.agent.dns import resolver_pool, upstream
from overlay.agent.dns.resolver_pool import ResolverPool
from tests.agent.conftest import until
from tests.agent.dns.conftest import FakeResolver, Loopback

ALL = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
MUSL_PATIENCE_S = 2.0  # with the options that a bare container has


async def ask(
    pool: ResolverPool, kind: str = "A", resolvers: list[str] = ALL, *, by_tcp: bool = False
) -> tuple[DNSRecord | None, float]:
    """Ask for a name; return the answer and how long it took."""
    begun_s = time.monotonic()
    query = DNSRecord.question("www.example.org", kind).pack()
    answer = await pool.ask(resolvers, query, by_tcp=by_tcp)
    return None if answer is None else DNSRecord.parse(answer), time.monotonic() - begun_s


async def served(loopback: Loopback, *fakes: FakeResolver) -> None:
    """Run the resolvers on their addresses."""
    for address, fake in zip(ALL, fakes, strict=False):
        await loopback.add(address, fake)


def silent() -> FakeResolver:
    """Return a resolver that never answers."""
    return FakeResolver(is_silent=True)


@pytest.mark.parametrize("by_tcp", [False, True])
@pytest.mark.parametrize("rcode", [RCODE.REFUSED, RCODE.SERVFAIL, RCODE.NOTIMP, RCODE.FORMERR])
async def test_after_a_failure_the_next_is_asked_at_once(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, rcode: int, *, by_tcp: bool
) -> None:
    """A resolver that fails, and one that cannot be reached, cost no time."""
    monkeypatch.setattr(resolver_pool, "NEXT_AFTER_S", 3600.0)
    monkeypatch.setattr(resolver_pool, "PATIENCE_S", 7200.0)
    await served(loopback, FakeResolver(rcode=rcode), FakeResolver())

    for resolvers in (ALL, ["127.0.0.3", "127.0.0.2"], ["fe80::1%nothing", "127.0.0.2"]):
        answer, _ = await ask(ResolverPool(), resolvers=resolvers, by_tcp=by_tcp)
        assert answer is not None
        assert answer.short() == "192.0.2.7"


async def test_a_name_that_does_not_exist_is_an_answer(loopback: Loopback) -> None:
    """NXDOMAIN of the first resolver is final: the second is not asked."""
    second = FakeResolver()
    await served(loopback, FakeResolver(rcode=RCODE.NXDOMAIN), second)

    answer, _ = await ask(ResolverPool())

    assert answer is not None
    assert (answer.header.rcode, second.queries) == (RCODE.NXDOMAIN, [])


class JumpingSelector(selectors.SelectSelector):
    """A selector that waits for nothing: the clock of its loop jumps to the next timer."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready."""
        self.now_s += timeout or 0.0
        return super().select(0)


@pytest.mark.parametrize("kind", ["A", "AAAA"])
@pytest.mark.parametrize("dead", [1, 2])
def test_dead_resolvers_leave_time_for_the_last(
    monkeypatch: pytest.MonkeyPatch, dead: int, kind: str
) -> None:
    """An answer, and one without records, come within musl's patience."""
    fake, asked = FakeResolver(), []

    async def query(resolver: str, raw: bytes, *, by_tcp: bool) -> bytes | None:  # noqa: ARG001
        asked.append(resolver)
        if len(asked) <= dead:
            await asyncio.sleep(3600.0)
        return fake.answer(raw)

    monkeypatch.setattr(upstream, "query", query)
    selector = JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    monkeypatch.setattr(loop, "time", lambda: selector.now_s)
    try:
        question = DNSRecord.question("www.example.org", kind).pack()
        raw = loop.run_until_complete(ResolverPool().ask(ALL, question, by_tcp=False))
        took_s = selector.now_s
        loop.run_until_complete(asyncio.sleep(resolver_pool.SILENT_AFTER_S))  # for those outrun
    finally:
        loop.close()

    assert asked == ALL[: dead + 1]
    assert raw is not None
    assert DNSRecord.parse(raw).short() == "192.0.2.7" * (kind == "A")
    assert took_s < MUSL_PATIENCE_S


async def test_silent_resolvers_are_asked_last(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later queries go to the one that answers; the silent one is tried again after a while."""
    monkeypatch.setattr(resolver_pool, "SILENT_AFTER_S", 0.3)
    monkeypatch.setattr(resolver_pool, "RETRY_S", 1.0)
    first, pool = silent(), ResolverPool()
    await served(loopback, first, FakeResolver())
    await ask(pool)
    await until(lambda: bool(pool._silent))
    count = len(first.queries)
    monkeypatch.setattr(resolver_pool, "NEXT_AFTER_S", 3600.0)
    monkeypatch.setattr(resolver_pool, "PATIENCE_S", 7200.0)
    await ask(pool)
    assert len(first.queries) == count

    first.is_silent, first.ip = False, "192.0.2.1"
    await until(lambda: pool._silent[ALL[0]] <= asyncio.get_running_loop().time())
    for _ in range(2):
        answer, _ = await ask(pool)
        assert answer is not None
        assert answer.short() == "192.0.2.1"


async def test_a_slow_resolver_keeps_its_place(loopback: Loopback) -> None:
    """An answer after one second: the next resolver is faster, but the slow one is not silent."""

    class Slow(FakeResolver):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            asyncio.get_running_loop().call_later(0.6, super().datagram_received, data, addr)

    pool = ResolverPool()
    await served(loopback, Slow("192.0.2.1"), FakeResolver())
    answer, _ = await ask(pool)
    assert answer is not None
    assert answer.short() == "192.0.2.7"
    await asyncio.sleep(0.4)

    assert pool._in_order(ALL) == ALL


async def test_an_unanswered_name_does_not_make_a_resolver_silent(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that answers other queries meanwhile keeps its place."""
    monkeypatch.setattr(upstream, "UDP_WAITS_S", (0.5,))
    fake, pool = silent(), ResolverPool()
    await served(loopback, fake)
    unanswered = asyncio.create_task(ask(pool, resolvers=ALL[:1]))
    await until(lambda: len(fake.queries) == 1)
    fake.is_silent = False

    assert (await ask(pool, resolvers=ALL[:1]))[0] is not None
    assert (await unanswered)[0] is None
    assert pool._in_order(ALL) == ALL


async def test_an_earlier_resolver_may_know_more(loopback: Loopback) -> None:
    """A later one's NXDOMAIN waits for the earlier one, which knows the name."""

    class Slow(FakeResolver):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            asyncio.get_running_loop().call_later(0.6, super().datagram_received, data, addr)

    await served(loopback, Slow("192.0.2.1"), FakeResolver(rcode=RCODE.NXDOMAIN))

    answer, _ = await ask(ResolverPool())

    assert answer is not None
    assert answer.short() == "192.0.2.1"


async def test_if_all_fail_the_first_failure_is_returned(loopback: Loopback) -> None:
    """A client learns what the host's resolvers said."""
    await served(loopback, silent(), *[FakeResolver(rcode=code) for code in (5, 2)])
    pool = ResolverPool()

    answer, _ = await ask(pool, resolvers=ALL[1:])

    assert answer is not None
    assert answer.header.rcode == RCODE.REFUSED


@pytest.mark.parametrize("by_tcp", [False, True])
async def test_silence_ends_before_the_clients_patience(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, *, by_tcp: bool
) -> None:
    """With silent resolvers only there is no answer, within a stub resolver's 5 s."""
    assert resolver_pool.PATIENCE_S < 5.0
    monkeypatch.setattr(resolver_pool, "PATIENCE_S", 1.5)
    await served(loopback, silent(), silent(), silent())

    answer, took_s = await ask(ResolverPool(), by_tcp=by_tcp)

    assert (answer, took_s >= resolver_pool.PATIENCE_S) == (None, True)
    assert await ResolverPool().ask([], b"", by_tcp=by_tcp) is None
