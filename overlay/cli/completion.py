"""Completion: a script for each shell, and the names that the script asks for.

Owns: which names a kind of words has. The agent, the container engines and the lab are asked
during completion; an argument's METAVAR determines its kind (`shells/tree`).
Does not: know any verb by name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from overlay.cli.parser import DELEGATED
from overlay.cli.shells import bash, fish, zsh
from overlay.cli.shells.local_targets import running_targets
from overlay.cli.shells.tree import commands
from overlay.errors import OverlayError
from overlay.target_kinds import KINDS as KINDS_OF_TARGETS

if TYPE_CHECKING:
    import argparse

    from overlay.cli.shells.tree import Command
    from overlay.client.api import ApiClient


def live_candidates(client: ApiClient, kind: str) -> list[str]:
    """Return the names of a kind; raises OverlayError if the agent does not tell them."""
    match kind:
        case "networks":
            return sorted(item["name"] for item in client.get("/v1/networks")["networks"])
        case "services":
            return sorted(item["name"] for item in client.get("/v1/services")["services"])
        case "policies":
            return sorted(item["name"] for item in client.get("/v1/policies")["policies"])
        case "routers":
            return sorted(item["name"] for item in client.get("/v1/routers")["routers"])
        case "peers":
            return _peers(client)
        case "places":
            shared = [f"container:{name}" for name in live_candidates(client, "containers")]
            return [*live_candidates(client, "networks"), "none", "host", *shared]
        case "nodes":
            return sorted(item["name"] for item in client.get("/v1/members")["members"])
        case "containers":
            return sorted(item["name"] for item in client.get("/v1/containers")["containers"])
        case "tokens":
            listed = client.get("/v1/tokens")["tokens"]
            return sorted(item["id"][:8] for item in listed if item["state"] == "valid")
        case "endpoints":
            return sorted(item["name"] for item in client.get("/v1/endpoints")["endpoints"])
        case "publishable":
            return [*live_candidates(client, "endpoints"), "ls"]
        case "targets":
            names = _attached(client)
            names |= {item["name"] for item in client.get("/v1/containers")["containers"]}
            return _with_other_kinds(sorted(names))
        case "unattached":
            return _with_other_kinds(_unattached(client))
        case "lab-hosts":
            from overlay.lab import lab  # noqa: PLC0415  only the lab's verbs need it

            return [host.name for host in lab.members()]
    return []


def _peers(client: ApiClient) -> list[str]:
    """Return the peers of policies that select something now."""
    endpoints = client.get("/v1/endpoints")["endpoints"]
    labels = {pair for each in endpoints for pair in each["labels"].items()}
    return [
        *sorted(f"label={key}={value}" for key, value in labels),
        *sorted({f"name={each['name']}" for each in endpoints}),
        "host",
        "world",
        "cidr:",
        *(f"network:{name}" for name in live_candidates(client, "networks")),
    ]


def _with_other_kinds(targets: list[str]) -> list[str]:
    """Return targets, and the beginnings of those kinds of which there is none."""
    begun = [f"{kind.word}:" for kind in KINDS_OF_TARGETS]
    return [*targets, *(word for word in begun if not any(t.startswith(word) for t in targets))]


def _attached(client: ApiClient) -> set[str]:
    here = client.get("/v1/endpoints")["endpoints"]
    return {item["target"] for item in here if item.get("target")}


def _unattached(client: ApiClient) -> list[str]:
    """Return the targets that run on this host and are on no network of overlayd."""
    try:
        attached = _attached(client)
    except OverlayError:  # no agent yet: the containers run anyway
        attached = set()
    return sorted(target for target in running_targets() if target not in attached)


def tree(parser: argparse.ArgumentParser) -> list[Command]:
    """Return all commands, with those of the verbs that parse their words themselves."""
    others = {
        verb: importlib.import_module(name).command_parser() for verb, name in DELEGATED.items()
    }
    return list(commands(parser, others=others))


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for `shell`: bash, zsh or fish."""
    write = {"bash": bash.script, "zsh": zsh.script, "fish": fish.script}[shell]
    return write(tree(parser))
