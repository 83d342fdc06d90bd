"""Denied packets of policies with a log, as events; and counts by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from overlay.agent.policy.counters import PolicyCount, PolicyCounters, PolicyReading
from overlay.agent.policy.drop_reports import DropReports
from overlay.core.policy.compiler import rule_numbers
from overlay.core.policy.policy import Policy
from overlay.kernel.bpf.policy_maps import DeniedPacket, RuleCount
from overlay.model import Vni, parse_ip
from tests.agent.policy.conftest import BLUE, PolicyBench

NO_MAIL = Policy("No-mail", BLUE, "deny", log=True)
RULE = rule_numbers(["no-mail"])["no-mail"]
MAIL = DeniedPacket(RULE, parse_ip("10.7.0.2"), parse_ip("1.1.1.1"), 6, 25, 4)
PING = MAIL._replace(protocol=1, port=0, packets=1)


class Runtimes:
    """A host with a sandbox of one network."""

    def __init__(self, found: object) -> None:
        self._found = found
        self.reads = 0

    def runtime(self, vni: Vni) -> Any:
        """Return the sandbox of network blue."""
        return self if vni == BLUE else None

    sandbox = None

    async def call(self, _read: object, _sandbox: object) -> object:
        """Return what the kernel has."""
        self.reads += 1
        return self._found


def counters(bench: PolicyBench, found: object) -> PolicyCounters:
    """Return what reads these counts and samples."""
    host = cast("Any", Runtimes(found))
    return PolicyCounters(host, host, bench.registry.catalog)


async def test_counts_are_those_of_names(bench: PolicyBench) -> None:
    """A number that no policy has is left out; samples with the most packets come first."""
    bench.registry.create(bench.network(BLUE), NO_MAIL)
    counts = {RULE: RuleCount(0, 5), 0: RuleCount(7, 0), 4000: RuleCount(1, 1)}
    found = await counters(bench, (counts, [PING, MAIL])).read(BLUE)

    assert found == PolicyReading(
        {"no-mail": PolicyCount(0, 5), "": PolicyCount(7, 0)}, {"no-mail": [MAIL, PING]}
    )
    assert await counters(bench, None).read(BLUE) == PolicyReading()
    assert await counters(bench, None).read(Vni(99)) is None


@pytest.mark.parametrize("log", [True, False])
async def test_the_first_denied_packet_is_an_event(bench: PolicyBench, *, log: bool) -> None:
    """With its ends by name; only of policies with a log."""
    bench.registry.create(bench.network(BLUE), replace(NO_MAIL, log=log))
    reader = counters(bench, ({RULE: RuleCount(0, 5)}, [MAIL]))
    reports = DropReports(cast("Any", bench.context), reader, bench.registry.catalog, bench.decider)
    await reports.reconcile()
    await reports.reconcile()
    texts = [event["text"] for event in bench.site.event_log.since(0.0)]
    denied = "policy No-mail denies packets, such as web1 (10.7.0.2) to 1.1.1.1, 25/tcp"

    assert texts.count(denied) == int(log)


async def test_a_network_is_read_once_for_all_its_policies(bench: PolicyBench) -> None:
    """Whatever many of them log; one without a log asks for nothing."""
    for name in ("a", "b", "c"):
        bench.registry.create(bench.network(BLUE), replace(NO_MAIL, name=name, log=name != "c"))
    host = Runtimes(None)
    reader = PolicyCounters(cast("Any", host), cast("Any", host), bench.registry.catalog)
    reports = DropReports(cast("Any", bench.context), reader, bench.registry.catalog, bench.decider)
    await reports.reconcile()

    assert host.reads == 1
