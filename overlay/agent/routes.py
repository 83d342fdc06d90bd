"""From HTTP paths to the agent's verbs: reads the request, calls, shows the result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from overlay import exposition, limits
from overlay.agent import (
    answers,
    asked,
    containermodes,
    ipamviews,
    networkanswers,
    networks,
    request,
    shape,
    views,
)
from overlay.agent.agent import Agent
from overlay.agent.containers import Containers
from overlay.agent.joining import JoinWish, Seed
from overlay.agent.memberviews import members
from overlay.agent.networks import Surroundings, Wish
from overlay.agent.running import Running
from overlay.agent.subnets import SubnetWish
from overlay.agent.targets import resolve_target
from overlay.agent.web import web
from overlay.agent.wishes import wish_of
from overlay.core.drivers import OVERLAY
from overlay.errors import ConflictError, NotFoundError, UsageError
from overlay.kernel import parents, probe, underlay
from overlay.model import Network, ip_text, node_text

Json = dict[str, Any]


class Routes:
    """The verbs of the API, bound to one agent."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.containers = Containers(agent)

    # --- cluster ------------------------------------------------------------------------

    async def status(self, _request: web.Request, _body: Json) -> answers.Status:
        """GET /v1/status."""
        return views.status(self._agent)

    async def metrics(self, _request: web.Request, _body: Json) -> web.Response:
        """GET /metrics."""
        shown = exposition.text(views.status(self._agent))
        return web.Response(text=shown, headers={"Content-Type": exposition.CONTENT_TYPE})

    async def join(self, _request: web.Request, body: Json) -> answers.Joined:
        """POST /v1/join."""
        wish = JoinWish(
            peers=tuple(request.texts(body, "peers", limits.SEED_COUNT_MAX)),
            token=request.secret(body, "token"),
            underlay=request.text(body, "underlay"),
            name=request.name(body, "name"),
            vxlan_port=request.number(body, "vxlan_port", 1, 65535),
            gossip_port=request.number(body, "gossip_port", 1, 65535),
        )
        started = time.monotonic()
        already = self._agent.running is not None
        running, created, via = await self._agent.join(wish)
        return {
            "created": created,
            "already": already,
            "cluster": running.member.cluster.cluster_id[:8],
            "via": _seed_text(via),
            "node": views.node(running.member.card, running.underlay.interface),
            "vxlan_port": running.member.cluster.vxlan_port,
            "gossip_port": running.member.cluster.gossip_port,
            "overlay_mtu": running.datapath.overlay_mtu,
            "members": self._agent.members_alive(),
            "networks": len(running.directory.networks()),
            "endpoints": sum(
                1
                for network in running.directory.networks()
                for _ in running.directory.endpoints(network.vni)
            ),
            "elapsed_ms": round((time.monotonic() - started) * 1000, 1),
            "next": f"sudo overlayd join {ip_text(running.member.card.address)} --token-file FILE",
        }

    async def leave(self, _request: web.Request, body: Json) -> answers.Left:
        """POST /v1/leave."""
        return {"withdrawn": await self._agent.leave(force=request.flag(body, "force"))}

    async def reset(self, _request: web.Request, _body: Json) -> answers.WasReset:
        """POST /v1/reset: leave if a member, then end the process; the caller clears the rest.

        A copied disk's agent leaves nothing: what it withdrew would be the original's.
        """
        running = self._agent.running
        is_copy = running is not None and running.doubts.has_rival()
        left = running is not None and not is_copy
        if not is_copy:
            await self.containers.remove_all()
        if left:
            await self._agent.leave(force=True)
        asyncio.get_running_loop().call_later(0.1, self._agent.stopping.set)
        return {"left": left, "cleared": not is_copy}

    async def members(self, _request: web.Request, _body: Json) -> answers.Members:
        """GET /v1/members."""
        return {"members": members(self._agent.member())}

    async def forget(self, _request: web.Request, body: Json) -> answers.Forgotten:
        """POST /v1/forget."""
        name = request.required_text(body, "node")
        powered_off = request.flag(body, "powered_off")
        bar = request.flag(body, "bar")
        node_id = self._agent.member().forgetting.forget(name, powered_off=powered_off, bar=bar)
        return {"forgotten": node_text(node_id)}

    # --- networks -----------------------------------------------------------------------

    async def network_list(self, _request: web.Request, _body: Json) -> networkanswers.Networks:
        """GET /v1/networks."""
        running = self._agent.member()
        return {"networks": [views.network(n, running) for n in running.directory.networks()]}

    async def network_create(self, _request: web.Request, body: Json) -> networkanswers.NetworkMade:
        """POST /v1/networks."""
        running = self._agent.member()
        wish = Wish(
            name=request.required_name(body, "name"),
            subnets=_subnets(body),
            vni=request.number(body, "vni", 1, limits.VNI_MAX),
            internal=request.flag(body, "internal"),
            labels=request.labels_with_security(body),
            force=request.flag(body, "force"),
            isolate_subnets=request.flag(body, "isolate_subnets"),
            driver=request.text(body, "driver") or OVERLAY,
            parent=request.text(body, "parent") or "",
        )
        networks.require_sound(wish)
        if wish.parent:
            await self._agent.kernel.call(parents.require, wish.driver, wish.parent)
        around = await self._surroundings(running)
        known = {network.name for network in running.directory.networks()}
        made = networks.create(running.member, running.directory, wish, around)
        return {**views.network(made, running), "created": made.name not in known}

    async def _surroundings(self, running: Running) -> Surroundings:
        port = running.member.cluster.vxlan_port
        routes = await self._agent.kernel.call(underlay.routes)
        foreign = await self._agent.kernel.call(probe.foreign_vnis, port)
        return Surroundings(
            overlapping_route=lambda wanted: underlay.overlapping(routes, wanted),
            vnis_in_use=frozenset(foreign),
        )

    async def network_inspect(self, http: web.Request, _body: Json) -> networkanswers.NetworkDetail:
        """GET /v1/networks/NAME."""
        running = self._agent.member()
        return views.network_detail(running.directory.network(http.match_info["name"]), running)

    async def network_remove(self, http: web.Request, _body: Json) -> networkanswers.NetworkRemoved:
        """DELETE /v1/networks/NAME."""
        running = self._agent.member()
        name = http.match_info["name"]
        async with running.taking_part.seeing(running.directory.network(name)):
            removed = networks.remove(running.member, running.directory, name)
        return {"removed": removed.name, "vni": removed.vni}

    async def ipam(self, http: web.Request, _body: Json) -> networkanswers.Ipam:
        """GET /v1/ipam[?network=NAME]."""
        running = self._agent.member()
        wanted = request.text(dict(http.query), "network")
        chosen = [running.directory.network(wanted)] if wanted else running.directory.networks()
        return ipamviews.ipam(running, chosen)

    # --- endpoints ----------------------------------------------------------------------

    async def endpoint_list(self, http: web.Request, _body: Json) -> networkanswers.Endpoints:
        """GET /v1/endpoints[?network=NAME]."""
        running = self._agent.member()
        wanted = request.text(dict(http.query), "network")
        chosen = [running.directory.network(wanted)] if wanted else running.directory.networks()
        elsewhere = [
            network.name
            for network in chosen
            if not running.directory.follows(running.member.node_id, network.vni)
        ]
        return {"endpoints": views.endpoints(running, chosen), "elsewhere": elsewhere}

    async def attach(self, _request: web.Request, body: Json) -> networkanswers.Attached:
        """POST /v1/endpoints."""
        text = request.required_text(body, "target")
        return await self.attach_to(await asyncio.to_thread(resolve_target, text), body)

    async def attach_to(self, target: Any, body: Json) -> networkanswers.Attached:
        """Attach a resolved target as the body asks for."""
        running = self._agent.member()
        names = request.texts(body, "networks", limits.NETWORK_COUNT_MAX)
        if not names:
            raise UsageError("networks is empty", hint="Name one at least", field="networks")
        containermodes.refuse(names)
        chosen = [running.directory.network(name) for name in dict.fromkeys(names)]
        wish, wait = wish_of(body, len(chosen)), request.waits(body)
        started = time.monotonic()
        results = await running.attaching.attach_all(target, chosen, wish, wait=wait)
        await self.containers.point_resolver(target.name)
        missing = sorted({node for result in results for node in result.unconfirmed})
        return {
            "endpoints": [views.attached(result) for result in results],
            "unconfirmed": [running.directory.node_name(node) for node in missing],
            "elapsed_ms": round((time.monotonic() - started) * 1000, 2),
        }

    async def detach(self, _request: web.Request, body: Json) -> networkanswers.Detached:
        """POST /v1/detach: also a container that is gone, by the name it was attached by."""
        running = self._agent.member()
        text = request.required_text(body, "target")
        chosen = [
            running.directory.network(name)
            for name in request.texts(body, "networks", limits.NETWORK_COUNT_MAX)
        ]
        identities = await self._identities(running, text)
        bare = {
            attachment.target.removeprefix("netns:")
            for attachment in running.attachments.values()
            if attachment.netns_identity in identities
        }
        gone: list[tuple[Network, Any]] = []
        for identity in identities:
            gone += await running.detaching.detach(identity, chosen)
        for name in bare:
            await self.containers.point_resolver(name)
        running.returning.forget(text, {network.vni for network in chosen})
        return {
            "detached": [
                {"network": network.name, "ip": ip_text(found.ips[0]), "name": found.name}
                for network, found in gone
            ]
        }

    async def _identities(self, running: Running, text: str) -> list[tuple[int, int]]:
        attached = list(running.attachments.values())
        same = {a.netns_identity for a in attached if a.target == text}
        if same:
            return sorted(same)
        by_name = {a.target: a.netns_identity for a in attached if _bare_name(a.target) == text}
        if len(by_name) > 1:
            known = ", ".join(sorted(by_name))
            raise ConflictError(
                f"{text!r} names {len(by_name)} containers on this host",
                why=f"attached are {known}",
                hint=f"Say which, for example {min(by_name)}",
            )
        if by_name:
            return sorted({a.netns_identity for a in attached if a.target in by_name})
        try:
            target = await asyncio.to_thread(resolve_target, text)
        except NotFoundError:
            return []
        return [await self._agent.kernel.call(_identity_of, target.netns_path)]

    # --- looking closer -----------------------------------------------------------------

    async def events(self, http: web.Request, _body: Json) -> Json | web.StreamResponse:
        """GET /v1/events[?since=SECONDS][&follow=1]."""
        since = request.moment(dict(http.query), "since")
        if not request.switch(dict(http.query), "follow"):
            return {"events": self._agent.journal.since(since)}
        return await self._follow(http, since)

    async def _follow(self, http: web.Request, since: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(http)
        queue: asyncio.Queue[Json] = asyncio.Queue(limits.RECENT_EVENTS_MAX)

        def take(event: Json) -> None:
            if not queue.full():  # a reader that does not read loses events, not our memory
                queue.put_nowait(event)

        stop = self._agent.journal.follow(take)
        try:
            for event in self._agent.journal.since(since):
                await response.write(json.dumps(event).encode() + b"\n")
            # Nobody tells a verb that its reader has gone: without events, it looks.
            while not self._agent.stopping.is_set() and http.transport is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limits.FOLLOWER_LOOK_S):
                        event = await queue.get()
                    await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionResetError:
            pass
        finally:
            stop()
        return response


def _subnets(body: Json) -> list[SubnetWish]:
    value = body.get("subnets")
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UsageError("subnets must be a list of objects", field="subnets")
    found = []
    for item in value:
        request.allow(item, *shape.fields_of(asked.SubnetAsked))
        found.append(
            SubnetWish(
                request.required_text(item, "subnet"),
                request.text(item, "gateway"),
                request.text(item, "ip_range"),
                request.texts_by_name(item, "auxiliary", limits.AUXILIARY_COUNT_MAX),
                request.number(item, "block_length", 1, limits.PREFIX_LENGTH_MAX),
            )
        )
    return found


def _seed_text(seed: Seed | None) -> str | None:
    return None if seed is None else ip_text(seed.address)


def _bare_name(target: str) -> str:
    """Return what a target is called without its kind."""
    return target.partition(":")[2]


def _identity_of(path: str) -> tuple[int, int]:
    import os  # noqa: PLC0415 - used here alone

    found = os.stat(path)  # noqa: PTH116 - /proc paths are magic links
    return (found.st_dev, found.st_ino)
