"""Bare "containers": named network namespaces with their own resolv.conf and hosts.

For labs, teaching and tests: all of a container that a network needs. Owns: the namespaces
made by `container add`, and /etc/netns/NAME, where `ip netns exec` looks for files to show
instead of those of /etc (ip-netns(8)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from overlay import crashpoint, limits
from overlay.agent import containermodes, networkanswers, request, views
from overlay.agent.agent import Agent
from overlay.agent.containermodes import Mode, sharers
from overlay.agent.stored import CONTAINER_KIND
from overlay.agent.targets import resolve_target
from overlay.agent.web import web
from overlay.agent.wishes import AttachWish, wish_of
from overlay.core.drivers import has_sandbox
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.kernel import container, netns
from overlay.kernel.reset import FILES_DIRECTORY, HOST_MARK, SANDBOX_NAME, remove_files
from overlay.model import ip_text

Json = dict[str, Any]
_OPTIONS_DEFAULT = ["timeout:2", "attempts:2"]
_OWN = Mode()
_OWN_HOSTS = ("127.0.0.1 localhost", "::1 localhost")  # at the head of each file of hosts of ours
_WORD = re.compile(r"[A-Za-z0-9_.:-]+")


class Containers:
    """The verbs `container add`, `ls` and `rm`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def add(self, _request: web.Request, body: Json) -> networkanswers.ContainerMade:
        """POST /v1/containers: make it if it is not there, and attach it as asked."""
        name = request.required_name(body, "name")
        if SANDBOX_NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} cannot be a container's name",
                why="overlayd names namespaces of its own so, and removes those that nothing uses",
                hint="Choose another name",
                field="name",
            )
        resolver = {
            "dns_servers": [
                ip_text(ip) for ip in request.ips(body, "dns_servers", limits.DNS_SERVERS_MAX)
            ],
            "dns_search": _words(body, "dns_search", limits.DNS_SEARCH_MAX),
            "dns_options": _words(body, "dns_options", limits.DNS_OPTIONS_MAX),
        }
        words = request.texts(body, "networks", limits.NETWORK_COUNT_MAX)
        mode, named = containermodes.asked(body, words, self._agent.state.all(CONTAINER_KIND))
        networks = dict.fromkeys(words)
        # The name is the container's; on its networks it has that of its target, which is the same.
        wish, wait = replace(wish_of(body, len(networks)), name=None), request.waits(body)
        made = await self._make(name, mode, named=named)
        self._keep(name, {key: words for key, words in resolver.items() if words})
        endpoints: list[networkanswers.AttachedEndpoint] = []
        unconfirmed: list[str] = []
        if words and not named:
            try:
                answer = await self._attach(name, networks, wish, wait=wait)
            except BaseException:
                if made:
                    await self._unmake(name)
                raise
            endpoints, unconfirmed = answer["endpoints"], answer["unconfirmed"]
        await self.point_resolver(name)
        return {
            **self._shown(name),
            "created": made,
            "endpoints": endpoints,
            "unconfirmed": unconfirmed,
        }

    async def show(self, _request: web.Request, _body: Json) -> networkanswers.Containers:
        """GET /v1/containers."""
        return {"containers": [self._shown(name) for name in self._agent.state.all(CONTAINER_KIND)]}

    async def remove(self, http: web.Request, _body: Json) -> networkanswers.ContainerRemoved:
        """DELETE /v1/containers/NAME."""
        name = http.match_info["name"]
        if self._agent.state.get(CONTAINER_KIND, name) is None:
            raise NotFoundError(
                f"there is no container {name!r}",
                why="only those made by 'overlayd container add' are removed by this verb",
                hint="'overlayd container ls' lists them",
            )
        await self._remove(name)
        return {"removed": name}

    async def remove_all(self) -> None:
        """Remove every container made here: for `reset`."""
        containers = self._agent.state.all(CONTAINER_KIND)
        for name in sorted(containers, key=lambda name: Mode.of(containers[name]).is_own):
            await self._remove(name)  # sharers before owners

    async def point_resolver(self, name: str) -> None:
        """Lead a container's names to the networks that it is on now; harmless for any other."""
        running = self._agent.running
        name, targets = self._namespace_of(name)
        kept = self._agent.state.get(CONTAINER_KIND, name)
        if kept is None or running is None or Mode.of(kept).host:
            return
        found = [
            endpoint
            for attachment in running.attachments.values()
            if attachment.target in targets
            and (endpoint := running.directory.attached(attachment)) is not None
        ]
        if not found:
            await asyncio.to_thread(_write_files, name)
            return
        servers = [
            ip_text(subnet.gateway)
            for vni in dict.fromkeys(endpoint.vni for endpoint in found)
            if (network := running.directory.network_by_vni(vni)) is not None
            and has_sandbox(network)
            for subnet in network.subnets
        ]
        hosts = [f"{ip_text(ip)} {endpoint.name}" for endpoint in found for ip in endpoint.ips]
        servers = servers or kept.get("dns_servers", [])
        if not servers:  # nobody of ours to ask: the host's own way
            await asyncio.to_thread(_write_files, name, hosts=hosts)
            return
        lines = [f"nameserver {server}" for server in servers[: limits.DNS_SERVERS_MAX]]
        search = kept.get("dns_search") or [self._agent.config.dns_domain]
        lines.append(f"search {' '.join(search)}")
        lines.append(f"options {' '.join(kept.get('dns_options', _OPTIONS_DEFAULT))}")
        await asyncio.to_thread(_write_names, name, lines, hosts)

    def _keep(self, name: str, changes: Json) -> None:
        """Keep what was asked for the container's resolver, for as long as it exists."""
        kept = self._agent.state.get(CONTAINER_KIND, name) or {}
        if changes:
            with self._agent.state.transaction():
                self._agent.state.put(CONTAINER_KIND, name, {**kept, **changes})

    def _namespace_of(self, name: str) -> tuple[str, set[str]]:
        """Return the container whose namespace one is in, and all targets that lead there."""
        containers = self._agent.state.all(CONTAINER_KIND)
        owner = Mode.of(containers.get(name, {})).shares or name
        return owner, {f"netns:{each}" for each in (owner, *sharers(owner, containers))}

    async def _make(self, name: str, mode: Mode, *, named: bool) -> bool:
        state = self._agent.state
        kept = state.get(CONTAINER_KIND, name)
        if kept is not None:
            attached = [endpoint["network"] for endpoint in self._shown(name)["endpoints"]]
            containermodes.require_same(name, kept, mode, named=named, attached=attached)
            if await self._agent.kernel.call(_stands, name, mode):
                if not (FILES_DIRECTORY / name / "hosts").exists():  # a crash came between
                    await asyncio.to_thread(_write_files, name, mode)
                return False
        elif await self._agent.kernel.call(netns.exists, name):
            raise ConflictError(
                f"a network namespace named {name} exists already",
                why="it was not made by overlayd",
                hint=f"Attach it as it is: overlayd attach netns:{name} --network NETWORK",
            )
        elif await asyncio.to_thread(_is_of_others, FILES_DIRECTORY / name):
            raise ConflictError(
                f"{FILES_DIRECTORY / name} exists already",
                why="it was not made by overlayd: somebody has files for a namespace of that name",
                hint="Choose another name, or move them away",
            )
        with state.transaction():
            state.put(CONTAINER_KIND, name, {**(kept or {}), **mode.kept()})
        try:
            await self._agent.kernel.call(_create, name, mode)
            await asyncio.to_thread(_write_files, name, mode)
        except (OverlayError, OSError):
            if kept is None:
                await self._unmake(name)
            raise
        return True

    async def _unmake(self, name: str) -> None:
        await self._agent.kernel.call(_remove, name)
        await asyncio.to_thread(_remove_files, name)
        with self._agent.state.transaction():
            self._agent.state.delete(CONTAINER_KIND, name)

    async def _remove(self, name: str) -> None:
        sharing = sharers(name, self._agent.state.all(CONTAINER_KIND))
        if sharing:
            raise ConflictError(
                f"the network of {name} is in use",
                why=f"shared by {', '.join(sharing)}",
                hint=f"overlayd container rm {' '.join(sharing)} {name}",
            )
        running = self._agent.running
        if running is not None:
            for attachment in list(running.attachments.values()):
                if attachment.target == f"netns:{name}":
                    await running.detaching.remove(attachment)
        await self._unmake(name)

    async def _attach(
        self, name: str, names: Iterable[str], wish: AttachWish, *, wait: bool
    ) -> Json:
        running = self._agent.member()
        target = resolve_target(f"netns:{name}")
        chosen = [running.directory.network(each) for each in names]
        results = await running.attaching.attach_all(target, chosen, wish, wait=wait)
        missing = {node for result in results for node in result.unconfirmed}
        endpoints = [views.attached(result) for result in results]
        told = [running.directory.node_name(node) for node in sorted(missing)]
        return {"endpoints": endpoints, "unconfirmed": told}

    def _shown(self, name: str) -> networkanswers.Container:
        running = self._agent.running
        endpoints: list[networkanswers.ContainerEndpoint] = []
        _, targets = self._namespace_of(name)
        if running is not None:
            names = {network.vni: network.name for network in running.directory.networks()}
            for attachment in running.attachments.values():
                found = running.directory.attached(attachment)
                if attachment.target in targets and found is not None:
                    endpoints.append(
                        {
                            "network": names.get(found.vni, ""),
                            "ip": ip_text(found.ips[0]),
                            "ifname": attachment.ifname,
                        }
                    )
        return {
            "name": name,
            "netns": str(netns.path_of(name)),
            "pid": None,
            "network_mode": str(Mode.of(self._agent.state.get(CONTAINER_KIND, name) or {})),
            "endpoints": endpoints,
        }


def _stands(name: str, mode: Mode) -> bool:
    """Say whether a container's name leads to the namespace that is its, in the kernel thread."""
    return netns.exists(name) if mode.is_own else containermodes.is_named(name, mode)


def _create(name: str, mode: Mode) -> None:
    """Make the namespace with loopback up, or name another one, in the kernel thread."""
    if not mode.is_own:
        containermodes.give_name(name, mode)
    elif not netns.exists(name):
        os.close(container.create_namespace(name))


def _remove(name: str) -> None:
    """Take the namespace away, in the kernel thread."""
    with contextlib.suppress(NotFoundError):
        netns.remove(name)


def _remove_files(name: str) -> None:
    crashpoint.passing("container.remove-files")
    remove_files(FILES_DIRECTORY / name)
    with contextlib.suppress(OSError):
        FILES_DIRECTORY.rmdir()  # only if nobody else keeps something there


def _is_of_others(directory: Path) -> bool:
    """Say whether files for a namespace are somebody else's, not left by a container of ours."""
    if directory.is_symlink():  # ours lead to the files beside them of who shares his network
        return "/" in os.readlink(directory)  # noqa: PTH115 - as it is written there
    if not directory.is_dir():
        return directory.exists()
    found = {entry.name for entry in directory.iterdir()}
    try:
        hosts = (directory / "hosts").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return bool(found)
    ours = hosts.startswith(("\n".join(_OWN_HOSTS), HOST_MARK))
    return not ours or not found <= {"hosts", "resolv.conf"}


def _write_files(name: str, mode: Mode = _OWN, *, hosts: Sequence[str] = ()) -> None:
    if not mode.is_own:
        containermodes.write_files(name, mode)
        return
    directory = FILES_DIRECTORY / name
    crashpoint.passing("container.files")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        source = Path("/etc/resolv.conf")
        text = source.read_text(encoding="utf-8") if source.exists() else ""
        (directory / "resolv.conf").write_text(text, encoding="utf-8")
        _write_hosts(name, hosts)
    except OSError as error:
        raise _not_written(directory, error) from error


def _write_names(name: str, resolver: list[str], hosts: list[str]) -> None:
    """Write both files where they are: running commands have them bound over those of /etc."""
    crashpoint.passing("container.names")
    directory = FILES_DIRECTORY / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "resolv.conf").write_text("\n".join(resolver) + "\n", encoding="utf-8")
        _write_hosts(name, hosts)
    except OSError as error:
        raise _not_written(directory, error) from error


def _not_written(directory: Path, error: OSError) -> OverlayError:
    return OverlayError(
        f"cannot write {directory}", why=str(error.strerror), hint="Is /etc writable?"
    )


def _write_hosts(name: str, more: Sequence[str]) -> None:
    lines = [*_OWN_HOSTS, *more]
    (FILES_DIRECTORY / name / "hosts").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _words(body: Json, key: str, count_max: int) -> list[str]:
    """Return words that can stand in resolv.conf as they are."""
    words = request.texts(body, key, count_max)
    for word in words:
        if len(word) > limits.TEXT_SIZE_MAX or not _WORD.fullmatch(word):
            raise UsageError(
                f"{word!r} cannot stand in resolv.conf",
                why="letters, digits and .:_- only",
                hint="Several words are several options, or items",
                field=key,
            )
    return words
