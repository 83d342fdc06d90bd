"""The process of `overlayd web`: serves the page until it is stopped.

A failure to start is an OverlayError, which the command line reports like any other.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from overlay.agent.process.config import load
from overlay.client.paths import Paths
from overlay.errors import OverlayError, UsageError
from overlay.web import listen
from overlay.web.access import PageAccess, WebPolicy
from overlay.web.agent_link import AgentLink
from overlay.web.cluster_watch import ClusterWatch
from overlay.web.listen import WebAddress
from overlay.web.root_rights import give_up_root
from overlay.web.server import WebServer
from overlay.web.streams import PageStreams

# Called when the page can be opened, with what is wrong with the agent, if anything is.
Announce = Callable[[OverlayError | None], None]


def run(
    paths: Paths, address: WebAddress, token: str | None, names: list[str], announce: Announce
) -> int:
    """Serve the page until SIGTERM or SIGINT; return 0. Raises OverlayError."""
    if token is None and not address.is_local:
        raise UsageError(
            f"the page needs a token on {address.text}",
            why="other hosts can reach this address",
            hint="(umask 077; head -c 24 /dev/urandom | base64 > web.token); "
            f"overlayd web --listen {address.text} --token-file web.token",
            field="token_file",
        )
    group = load(paths.config, required=False).api_group
    users = {int(os.environ[name]) for name in ("SUDO_UID",) if os.environ.get(name, "").isdigit()}
    policy = WebPolicy(
        token, frozenset(name.lower() for name in names), group, frozenset(users | {os.geteuid()})
    )
    try:
        asyncio.run(_serve(paths, address, policy, announce))
    except KeyboardInterrupt:
        return 0
    return 0


async def _serve(paths: Paths, address: WebAddress, policy: WebPolicy, announce: Announce) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    listener = await listen.bind(address, policy.group)
    give_up_root(policy.group)
    streams = PageStreams()
    link = AgentLink(paths)
    watch = ClusterWatch(link, streams)
    server = WebServer(PageAccess(policy, f"overlayd-web-{address.port}"), watch, streams)
    try:
        watch.start()
        await server.start(listener)
        announce(await _problem(link))
        await stopping.wait()
    finally:
        await server.close()
        await watch.close()
        listen.remove(address)


async def _problem(link: AgentLink) -> OverlayError | None:
    try:
        await link.get("/v1/members")
    except OverlayError as error:
        return error
    return None
