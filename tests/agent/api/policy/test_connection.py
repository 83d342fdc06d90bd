"""`policy test` parses its ends and ports, and answers with the verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.api.policy.connection import answer
from overlay.agent.api.policy.schema import PolicyTestQuery, PolicyTestResponse
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.trace.party import PartyFinder
from overlay.core.declared.kinds import ROUTER_KIND
from overlay.core.policy.policy import Policy, PortRange, parse_peer
from overlay.core.router.router import Router
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.wire.codec.routers import encode_router
from tests.agent.policy.conftest import BLUE, RED, PolicyBench

DB = Policy(
    "db", BLUE, "allow", (parse_peer("label=app=web"),), (parse_peer("name=db1"),),
    (PortRange("tcp", 5432, 5432),),
)  # fmt: skip
OUT = Policy("out", BLUE, "allow", (parse_peer("name=web1"),), (parse_peer("world"),))


def asked(bench: PolicyBench, source: str, target: str, **fields: Any) -> PolicyTestResponse:
    """Return the answer about two ends."""
    for policy in (DB, OUT):
        bench.registry.create(bench.network(policy.vni), policy)
    attachments: Any = SimpleNamespace(values=list)
    components = SimpleNamespace(
        directory=bench.directory,
        diagnosis=SimpleNamespace(parties=PartyFinder(bench.directory, attachments, FabricTable())),
        policies=SimpleNamespace(decider=bench.decider),
    )
    return answer(PolicyTestQuery(source=source, target=target, **fields), cast("Any", components))


@pytest.mark.parametrize(
    ("source", "target", "port", "policy"),
    [
        ("web1", "db1", "5432/tcp", "db"),
        ("web1", "db1", "5432", "db"),  # a number is one of TCP
        ("10.7.0.2", "db1", "5432/tcp", "db"),
        ("WEB1", "10.7.0.3", "5432/tcp", "db"),
        ("10.7.0.2", "10.7.0.3", "5432/tcp", "db"),
        ("web1", "db1", "5433/tcp", None),
        ("web1", "db1", None, None),
        ("db1", "web1", "5432/tcp", None),
        ("web1", "1.1.1.1", "443/tcp", "out"),
        ("1.1.1.1", "web1", "443/tcp", None),
        ("web1", "10.9.0.2", "80/tcp", None),  # of another network, so not of the world
    ],
)
async def test_names_and_addresses_are_decided_on(
    bench: PolicyBench, source: str, target: str, port: str | None, policy: str | None
) -> None:
    """The network denies by default; an address may be any."""
    found = asked(bench, source, target, port=port)

    assert (found["network"], found["default"]) == ("blue", "deny")
    assert (found["allowed"], found["policy"]) == (policy is not None, policy)
    assert found["basis"] == ("default" if policy is None else "policy")


async def test_a_gateway_answers_names(bench: PolicyBench) -> None:
    """And is called so."""
    found = asked(bench, "web1", "10.7.0.1", port="53/udp")

    assert (found["allowed"], found["basis"]) == (True, "always")
    assert found["target"] == {"name": "gateway", "ip": "10.7.0.1"}


@pytest.mark.parametrize(
    ("source", "target", "fields", "error", "told"),
    [
        ("web1", "r1", {}, ConflictError, "not on one network"),
        ("web1", "dbb", {}, NotFoundError, "there is no container"),
        ("1.1.1.1", "2.2.2.2", {}, ConflictError, "neither"),
        ("1.1.1.1", "fd00::1", {"network": "blue"}, ConflictError, "has no IPv6 address"),
        ("web1", "fd00::1", {}, ConflictError, "web1 has no IPv6 address"),
        ("web1", "db1", {"port": "5-9/tcp"}, UsageError, "several ports"),
        ("web1", "db1", {"port": "tcp"}, UsageError, "all ports of a protocol"),
        ("web1", "db1", {"port": "x"}, UsageError, "not a valid port"),
        ("10.11.0.2", "1.1.1.1", {}, ConflictError, "network lan cannot have policies"),
    ],
)
async def test_what_has_no_answer_is_told(
    bench: PolicyBench,
    source: str,
    target: str,
    fields: dict[str, str],
    error: type[OverlayError],
    told: str,
) -> None:
    """With the reason."""
    with pytest.raises(error, match=told):
        asked(bench, source, target, **fields)


async def test_two_addresses_may_name_their_network(bench: PolicyBench) -> None:
    """So a connection between the world and itself has no policy that is about it."""
    found = asked(bench, "1.1.1.1", "2.2.2.2", network="blue", port="80")

    assert not found["allowed"]


@pytest.mark.parametrize(
    ("source", "target", "port", "allowed", "told"),
    [
        ("r1", "db1", "80/tcp", True, [("red", None), ("blue", "reds")]),
        ("r1", "10.7.0.3", "81/tcp", False, [("red", None), ("blue", None)]),
        ("10.9.0.2", "10.7.0.3", "80/tcp", True, [("red", None), ("blue", "reds")]),
        ("10.9.0.2", "db1", "80/tcp", True, [("red", None), ("blue", "reds")]),
        ("db1", "r1", "80/tcp", False, [("blue", None), ("red", None)]),
    ],
)
async def test_both_networks_of_a_router_decide(
    bench: PolicyBench,
    source: str,
    target: str,
    port: str,
    allowed: bool,
    told: list[tuple[str, str | None]],
) -> None:
    """In the order in which packets pass them; one that denies is enough."""
    bench.declared.put(ROUTER_KIND, "r", encode_router(Router("r", (BLUE, RED))))
    reds = Policy(
        "reds", BLUE, "allow", (parse_peer("network:red"),), (), (PortRange("tcp", 80, 80),)
    )
    bench.registry.create(bench.network(BLUE), reds)
    found = asked(bench, source, target, port=port)

    assert found["allowed"] == allowed
    assert [(each["network"], each["policy"]) for each in found["decisions"]] == told
    assert found["source"]["name"] in ("r1", "db1")
    assert found["target"]["name"] in ("r1", "db1")
