"""Errors of a request's field name the option or argument that the user typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli import parser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fake_agent import FakeAgent, Run

ATTACH = (
    "--network blue --ip 10.32.0.9 --mac 02:00:00:00:00:09 --ifname eth7 --gateway-priority 1 "
    "--alias www --label team=a --rate-in 1mbit --rate-out 2mbit --no-port-security --wait none "
)
# Every verb that sends a body, with every option that it sends.
LINES = {
    "endpoints": f"attach web --name web1 --no-default-route {ATTACH}",
    "containers": f"container add web {ATTACH} --dns 10.0.0.1 --dns-search lab --dns-option rotate",
    "endpoints/set": "endpoint set web --network blue --name web2 --add-alias www "
    "--remove-alias shop --add-label team=a --remove-label tier",
    "detach": "detach web --network blue",
    "networks": "network create blue --subnet 10.50.0.0/16 --gateway 10.50.0.9 "
    "--ip-range 10.50.8.0/21 --aux-address router=10.50.0.2 --block-size 24 --vni 7 --internal "
    "--isolate-subnets --no-port-security --label team=a --force --ipv6 --driver bridge "
    "--parent eth1",
    "dns": "dns add www 192.0.2.9 --network blue",
    "expose": "expose blue",
    "unexpose": "unexpose blue",
    "published": "publish web 8080:80 --network blue --host-ip 192.0.2.1",
    "unpublish": "unpublish web 8080:80 --network blue",
    "tokens": "token create --expires 2h --uses 3 --label laptop",
    "promote": "promote vm2",
    "authority/export": "authority export NEW --passphrase-file SECRET",
    "authority/import": "authority import SECRET --passphrase-file SECRET",
    "forget": "forget vm2 --powered-off --ban --force",
    "leave": "leave --force",
    "join": "join 192.168.56.11 --token-file TOKEN --underlay eth1 --name vm2 --vxlan-port 4790 "
    "--gossip-port 7949",
}


def fields_of(body: Any) -> set[str]:
    """Return the fields of a request that are set, including those of its subnets."""
    subnets = body.get("subnets") or []
    inner = {key for each in subnets for key, value in each.items() if value is not None}
    return {key for key, value in body.items() if value is not None} | inner


@pytest.mark.parametrize("path", LINES)
def test_errors_name_every_field_as_it_was_typed(
    agent: FakeAgent, overlayd: Run, tmp_path: Path, path: str
) -> None:
    """The error begins with an option of the verb, or with an argument from its usage."""
    (tmp_path / "TOKEN").write_text("ovt1." + "A" * 60)
    (tmp_path / "SECRET").write_text("a passphrase")
    files = ("TOKEN", "SECRET", "NEW")
    words = [str(tmp_path / word) if word in files else word for word in LINES[path].split()]
    request_line = f"POST /v1/{path}"
    agent.fail(request_line, "usage", 400)
    overlayd(*words)
    fields = fields_of(agent.asked[-1].body)
    known = parser.build(words).parse_args(words).verb_parser._actions
    names = {name for each in known for name in each.option_strings or [str(each.metavar)]}
    assert fields
    for field in fields:
        for what in (f"{field} must be something else", "it is no such thing"):
            agent.fail(request_line, "usage", 400, what=what, field=field)
            outcome = overlayd(*words)
            first = outcome.err.splitlines()[-1].removeprefix("error: ")
            spelled = first.removesuffix(" must be something else").split(": ")[0]

            assert outcome.code == 2
            assert spelled in names, (field, outcome.err)


def test_the_option_for_both_directions_is_named_if_typed(agent: FakeAgent, overlayd: Run) -> None:
    """`--rate` sets two fields; an error names it unless their own option was typed."""
    said = {"what": "rate_in must be lower", "field": "rate_in"}
    agent.fail("POST /v1/endpoints", "usage", 400, **said)

    line = ["attach", "web", "--network", "blue"]
    assert "error: --rate must" in overlayd(*line, "--rate", "1mbit").err
    assert "error: --rate-in must" in overlayd(*line, "--rate-in", "1mbit").err
    both = [*line, "--rate", "1mbit", "--rate-in", "2mbit"]
    assert "error: --rate-in must" in overlayd(*both).err


def test_field_names_inside_a_text_become_options(agent: FakeAgent, overlayd: Run) -> None:
    """A field name with an underscore becomes its option; other words stay."""
    agent.fail(
        "POST /v1/endpoints",
        "usage",
        400,
        what="default_route and name contradict",
        why="gateway_priority is low; gc_thresh3 is not",
    )
    err = overlayd("attach", "web", "--network", "blue").err

    assert "error: --no-default-route and name contradict" in err
    assert "--gateway-priority is low; gc_thresh3 is not" in err


def test_json_keeps_the_name_of_the_field(agent: FakeAgent, overlayd: Run) -> None:
    """The JSON error has the API's field name beside the text for people."""
    agent.fail("POST /v1/tokens", "usage", 400, what="uses must be one", field="uses")
    outcome = overlayd("token", "create", "--uses", "3", "--json")

    error = json.loads(outcome.out)["error"]
    assert (error["what"], error["field"]) == ("--uses must be one", "uses")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("attach web --network blue --rate 5", "--rate: invalid rate '5'"),
        (
            "attach web --network blue --rate-in 9999gbit",
            "--rate-in: rate '9999gbit' is out of range",
        ),
        ("attach web --network blue --rate-out 1bit", "--rate-out: rate '1bit' is out of range"),
        ("attach web --network blue --label a", "--label: 'a' is not KEY=VALUE"),
        ("attach web --network blue --publish x", "--publish: invalid port 'x'"),
        (
            "attach web --network blue --wait some",
            "--wait: invalid value 'some'; use one of all, none",
        ),
        ("publish web x", "HOST:CONTAINER[/udp]: invalid port 'x'"),
        ("unpublish", "missing: ENDPOINT\n"),
        ("network create x --subnet 10.1.0.0/16 --gateway x", "--gateway: 'x' is not an IP"),
        ("network create x --gateway 10.1.0.1", "--gateway needs a subnet"),
        ("network create x --subnet 10.1.0.0/16 --ip-range 10.9.0.0/24", "--ip-range: 10.9.0.0/24"),
        ("network create x --aux-address a", "--aux-address: 'a' is not NAME=ADDRESS"),
        ("network create x --subnet 10.1.0.0/16 --block-size 8", "--block-size: no subnet"),
        ("network ls --filter a", "--filter: invalid filter 'a'"),
        ("token create --expires 5", "--expires: invalid duration '5'"),
        ("token create --expires 99999w", "--expires: duration '99999w' is too long"),
        ("events --since x", "--since: invalid time 'x'"),
        ("status --wait --timeout nan", "--timeout must be a number"),
        ("status --timeout -1", "--timeout must be a number"),
        ("members --watch=1", "--watch takes no value, not '1'"),
    ],
)
def test_local_usage_errors_name_the_option(
    agent: FakeAgent, overlayd: Run, line: str, told: str
) -> None:
    """Errors found before a request is sent name the option in the same way."""
    agent.answer("GET /v1/networks", {"networks": []})
    outcome = overlayd(*line.split())

    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {told}"), outcome.err
