"""Commands container add, exec, ls and rm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli import parser
from overlay.cli.verbs import container
from overlay.strict_arguments import with_command_apart

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


def test_add_prints_the_address(overlayd: Run, agent: FakeAgent, attached: dict[str, Any]) -> None:
    """One request creates a bare container and attaches it."""
    answer = {
        "schema": "overlayd.container-add/v1", "name": "web", "netns": "/run/netns/web",
        "pid": None, "created": True, "endpoints": [attached], "unconfirmed": ["vm3"],
    }  # fmt: skip
    agent.answer("POST /v1/containers", answer)
    outcome = overlayd("container", "add", "web", "--network", "blue", "--ip", "10.32.0.2")

    assert (outcome.code, outcome.out) == (0, "10.32.0.2\n")
    assert "vm3" in outcome.err
    assert agent.asked[-1].body == {
        "name": "web",
        "networks": ["blue"],
        "ip": "10.32.0.2",
        "mac": None,
        "ifname": None,
        "default_route": True,
        "aliases": [],
        "labels": {},
        "port_security": True,
        "wait": "all",
        "dns_servers": [],
        "dns_search": [],
        "dns_options": [],
    }


def test_a_container_may_have_no_network(overlayd: Run, agent: FakeAgent) -> None:
    """Without --network there is no address to print."""
    agent.answer("POST /v1/containers", {"endpoints": [], "unconfirmed": []})
    outcome = overlayd("container", "add", "web")

    assert (outcome.code, outcome.out) == (0, "")
    assert agent.asked[-1].body["networks"] == []


def test_a_new_container_without_a_network_is_said_to_be_so(
    overlayd: Run, agent: FakeAgent
) -> None:
    """Without the option, the command that connects it is printed; with `none` it is not."""
    answer = {"name": "web", "created": True, "endpoints": [], "unconfirmed": []}
    agent.answer("POST /v1/containers", answer)
    told = overlayd("container", "add", "web").err

    assert "web is on no network yet" in told
    assert "sudo overlayd attach web --network NETWORK" in told
    assert overlayd("container", "add", "web", "--network", "none").err == ""
    agent.answer("POST /v1/containers", answer | {"created": False})
    assert overlayd("container", "add", "web").err == ""


def test_ls_is_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """The table has name, network mode, addresses and namespace."""
    web = {
        "name": "web", "netns": "/run/netns/web", "pid": None, "network_mode": "own",
        "endpoints": [{"network": "blue", "ip": "10.32.0.2", "ifname": "eth0"}],
    }  # fmt: skip
    agent.answer("GET /v1/containers", {"containers": [web]})

    assert overlayd("container", "ls").out.splitlines() == [
        "NAME  NETWORK  ADDRESSES       NAMESPACE",
        "web   own      blue=10.32.0.2  /run/netns/web",
    ]


def test_rm_takes_several(overlayd: Run, agent: FakeAgent) -> None:
    """Each container is removed by a separate request."""
    for name in ("a", "b"):
        agent.answer(f"DELETE /v1/containers/{name}", {"removed": name})

    assert overlayd("container", "rm", "a", "b").code == 0
    assert [asked.line for asked in agent.asked] == [
        "DELETE /v1/containers/a",
        "DELETE /v1/containers/b",
    ]


def test_exec_of_an_unknown_container_is_not_found(overlayd: Run) -> None:
    """The error names the container."""
    outcome = overlayd("container", "exec", "ovt-none", "true")

    assert outcome.code == 5
    assert "no such container on this host: ovt-none\n" in outcome.err


def test_exec_on_the_wrong_host_says_where_it_is(overlayd: Run, agent: FakeAgent) -> None:
    """If an agent runs here and knows a container of that name."""
    found = {"name": "OVT-none", "local": False, "node": "vm2", "network": "blue"}
    agent.answer("GET /v1/endpoints", {"endpoints": [found]})
    outcome = overlayd("container", "exec", "ovt-none", "true")

    assert (outcome.code, "ovt-none is on vm2, on network blue" in outcome.err) == (5, True)


def test_exec_needs_a_command(overlayd: Run) -> None:
    """A name without a command is a usage error."""
    assert overlayd("container", "exec", "web", "--").code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="another user may not enter a namespace at all")
@pytest.mark.parametrize(
    ("program", "code"), [("no-such-program", 127), ("/no/such/file", 127), ("/etc/passwd", 126)]
)
def test_exec_of_a_missing_program_exits_as_shells_do(
    overlayd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, code: int
) -> None:
    """127 for a program that is not there, 126 for one that cannot be executed."""
    (tmp_path / "web").touch()
    monkeypatch.setattr(container, "NETNS_DIR", tmp_path)
    outcome = overlayd("container", "exec", "web", program, "--json")

    assert (outcome.code, outcome.out) == (code, "")
    assert program in outcome.err


@pytest.mark.parametrize(
    "before", [(), ("--run-dir", "/r"), ("--run-dir=/r",)], ids=["plain", "option", "equals"]
)
@pytest.mark.parametrize(
    "command", [("--help",), ("ip", "--json"), ("--", "x"), ("--run-dir", "/a"), ("sh", "-c", "--")]
)
def test_options_after_a_name_are_the_commands(
    before: tuple[str, ...], command: tuple[str, ...]
) -> None:
    """Also those that overlayd has itself; only options before the name are overlayd's."""
    words = [*before, "container", "exec", "c1", *command]
    apart = with_command_apart(words, parser.COMMAND_VERB, parser.GLOBAL_OPTIONS)
    args = parser.build(words).parse_args(apart)

    assert args.name == "c1"
    found, typed = list(args.command), list(command)
    assert found[found[:1] == ["--"] :] == typed[typed[:1] == ["--"] :]
    assert args.run_dir == ("/r" if before else None)


def test_help_before_the_name_is_of_exec(overlayd: Run) -> None:
    """So is that of the other verbs, whose words are left as they are."""
    assert "CONTAINER" in overlayd("container", "exec", "--help").out
    for words in (["container", "ls", "--json"], ["status"], ["container"], ["exec", "c1", "-x"]):
        assert with_command_apart(words, parser.COMMAND_VERB, parser.GLOBAL_OPTIONS) == words


@pytest.mark.netns
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace")
@pytest.mark.parametrize("dashes", [[], ["--"]])
def test_exec_runs_a_command_in_the_namespace(dashes: list[str]) -> None:
    """Options after the name belong to the command, whose exit code is returned."""
    name = f"ovt{os.getpid()}x"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "overlay.cli.main",
                "container",
                "exec",
                name,
                *dashes,
                "sh",
                "-c",
                "ip -o link; exit 9",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)

    assert done.returncode == 9
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["lo:"]
