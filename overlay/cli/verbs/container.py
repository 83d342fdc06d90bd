"""Commands `container add`, `exec`, `ls` and `rm`, for bare containers.

A bare container is a named network namespace with its own resolv.conf and hosts file under
/etc/netns/NAME, see ip-netns(8).
Owns: their options and output, and running a command in one.
Does not: know how a container is created.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options.common import add_attach_options, add_network_option
from overlay.cli.options.lists import add_list_options, print_rows
from overlay.cli.options.removal import remove_all
from overlay.cli.verbs.endpoint import attach_and_report
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import ForbiddenError, NotFoundError, OverlayError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

NETNS_DIR = Path("/run/netns")
_LOOK_TIMEOUT_S = 1.0  # the error needs no agent
SANDBOX_PREFIX = "ov-"  # of the agent's sandbox namespaces


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    containers = words.group(
        "container", "create and use bare containers: named network namespaces"
    )
    add = containers.verb(
        "add",
        run_add,
        "create a bare container and attach it",
        "Create a bare container: a network namespace with its own resolv.conf and hosts file.\n"
        "stdout: its address on each network, one per line.\n"
        "Instead of a network: none (only a loopback interface), host (the host's namespace),\n"
        "container:NAME (the namespace of another bare container).\n\n"
        "  sudo overlayd container add web --network blue\n"
        "  sudo overlayd container add debug --network container:web\n"
        "  sudo overlayd container exec web ping 10.32.0.3",
    )
    add.add_argument("name", metavar="NAME")
    add_network_option(add, required=False)
    add_attach_options(add, may_start_later=False)
    for option, dest, metavar, summary in (
        (
            "--dns",
            "dns_servers",
            "ADDRESS",
            "resolver for all other names (queried by the host); may be repeated",
        ),
        (
            "--dns-search",
            "dns_search",
            "WORD",
            "search domain in its resolv.conf (default: overlay, then the host's)",
        ),
        ("--dns-option", "dns_options", "WORD", "option in its resolv.conf, such as ndots:2"),
    ):
        add.add_argument(
            option, dest=dest, action="append", default=[], metavar=metavar, help=summary
        )
    add.add_argument(
        "--restart",
        choices=("no", "always"),
        help="always: make it again, with its addresses, when the agent starts after a reboot",
    )
    execute = containers.verb("exec", run_exec, "run a command in a bare container", json=False)
    execute.add_argument("name", metavar="CONTAINER")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    listed = containers.verb("ls", run_ls, "list the bare containers of this host", watch=True)
    add_list_options(listed)
    remove = containers.verb("rm", run_rm, "remove bare containers")
    remove.add_argument("names", nargs="+", metavar="CONTAINER")


def run_add(args: Namespace) -> int:
    """Create a container."""
    body: JsonObject = {"name": args.name}
    for field in ("dns_servers", "dns_search", "dns_options"):
        body[field] = getattr(args, field)
    if args.restart is not None:
        body["restart"] = args.restart
    return attach_and_report(args, "/v1/containers", body)


def run_exec(args: Namespace) -> int:
    """Replace this process by a command in the container; works without an agent."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError(
            "no command to run was given",
            hint=f"overlayd container exec {args.name} ip address",
        )
    known = _namespaces()
    if args.name not in known:
        shown = [name for name in known if not name.startswith(SANDBOX_PREFIX)]
        raise NotFoundError(
            f"no such container on this host: {args.name}",
            why=_whereabouts(args) or f"{NETNS_DIR} contains {', '.join(shown) or 'no container'}",
            hint="overlayd container ls",
        )
    if os.geteuid() != 0:
        raise ForbiddenError("only root may enter a network namespace", hint="Use sudo")
    _require_program(command[0])
    try:
        # ip-netns(8) also bind-mounts the files of /etc/netns/NAME over those of /etc.
        os.execvp("ip", ["ip", "netns", "exec", args.name, *command])  # noqa: S606  no shell on purpose
    except OSError as error:
        raise OverlayError(
            "cannot run `ip`", why=str(error.strerror), hint="apt install iproute2"
        ) from error


def _whereabouts(args: Namespace) -> str:
    """Return which other host has a container of that name, if an agent here knows; or empty."""
    with contextlib.suppress(OverlayError):
        listed = ApiClient(args.paths, _LOOK_TIMEOUT_S).get("/v1/endpoints")["endpoints"]
        for endpoint in listed:
            if endpoint["name"].lower() == args.name.lower() and not endpoint["local"]:
                return f"{args.name} is on {endpoint['node']}, on network {endpoint['network']}"
    return ""


class _ProgramNotFoundError(NotFoundError):
    exit_code = 127  # as shells have it


class _NotExecutableError(ForbiddenError):
    exit_code = 126  # as shells have it


def _require_program(name: str) -> None:
    """Raise the error of a program that is not there, or cannot be executed."""
    folders = [""] if "/" in name else os.get_exec_path()
    found = [path for folder in folders if (path := Path(folder, name)).is_file()]
    if not found:
        raise _ProgramNotFoundError(
            f"there is no program {name!r}",
            why="it is not a file" if "/" in name else f"it is not in {':'.join(folders)}",
            hint="A bare container has the programs of its host: install it there",
        )
    if not any(os.access(path, os.X_OK) for path in found):
        raise _NotExecutableError(f"cannot execute {found[0]}", why="it is not executable")


def _namespaces() -> list[str]:
    try:
        return sorted(entry.name for entry in NETNS_DIR.iterdir())
    except OSError:
        return []


def run_ls(args: Namespace) -> int:
    """List the containers."""
    listed = ApiClient(args.paths).get("/v1/containers")
    if print_rows(args, listed, "containers"):
        return 0
    if not listed["containers"]:
        output.print_note("no bare containers; to create one: overlayd container add NAME")
        return 0
    rows = [
        (
            container["name"],
            container.get("network_mode", "own"),
            [f"{e['network']}={e['ip']}" for e in container["endpoints"]],
            container["netns"],
        )
        for container in listed["containers"]
    ]
    headers = ("NAME", "NETWORK", "ADDRESSES", "NAMESPACE")
    output.print_result(output.table(headers, rows, show_header=not args.no_header))
    return 0


def run_rm(args: Namespace) -> int:
    """Remove containers, one by one."""
    return remove_all(args, "/v1/containers", "overlayd.container-rm/v1", args.names)
