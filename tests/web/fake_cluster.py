"""A fake agent with a whole cluster, of any size, whose answers can change and which can die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]
NETWORKS = ("blue", "green", "backend", "web", "metrics", "lab-a", "lab-b", "storage", "mail")


def member(name: str, number: int, state: str = "alive", path: Json | None = None) -> Json:
    """Return a member as the API shows it; number 0 is this host."""
    ok = {"sending": "ok", "receiving": "ok", "since_s": 4000.0, "size_expected": 1500,
          "size_carried": 1500}  # fmt: skip
    return {
        "id": f"n-{number:08x}", "name": name, "address": f"192.168.56.{11 + number}",
        "version": "0.1.0", "state": state, "since_s": 3725.2, "incarnation": 3,
        "rtt_ms": None if number == 0 else 0.3 + number % 7 / 10,
        "path": None if number == 0 else {**ok, **(path or {})},
        "logs": {"behind": 0, "equal_s": 0.4, "versions": []}, "authority": number < 3,
        "certificate_expires": 1767776000, "self": number == 0,
    }  # fmt: skip


def endpoint(name: str, node: str, network: str, number: int) -> Json:
    """Return an endpoint as the API shows it."""
    return {
        "id": f"{number:016x}", "name": name, "network": network, "vni": 9000001,
        "ips": [f"10.32.{number // 200}.{2 + number % 200}"],
        "mac": f"02:4f:0a:20:{number // 256:02x}:{number % 256:02x}", "node": node,
        "node_state": "alive", "local": node == "vm1",
        "target": f"docker:{name}" if node == "vm1" else None,
        "ifname": "eth0" if node == "vm1" else None, "aliases": [], "labels": {}, "rate_in": None,
        "rate_out": None, "gateway_priority": 0,
    }  # fmt: skip


def network(name: str, number: int) -> Json:
    """Return a network as the API shows it."""
    return {
        "name": name, "vni": 9000001 + number, "subnets": [{"subnet": f"10.{32 + number}.0.0/16"}],
        "internal": False, "labels": {}, "creator": "vm1", "endpoints": 1, "hosts": ["vm1", "vm2"],
        "here": True, "mtu": 1450, "mtu_why": "eth1 carries 1500 bytes, VXLAN takes 50",
        "driver": "overlay", "parent": None, "encrypted": name == "storage", "exposed": True,
        "exposed_why": None,
    }  # fmt: skip


class FakeCluster:
    """The agent of vm1; `members`, `endpoints`, `networks` and `health` are its answers."""

    def __init__(
        self, run_dir: Path, hosts: int = 3, containers: int = 6, networks: int = 2
    ) -> None:
        self.run_dir = run_dir
        names = NETWORKS[:networks]
        self.members = [member(f"vm{n + 1}", n) for n in range(hosts)]
        self.networks = [network(name, n) for n, name in enumerate(names)]
        self.endpoints = [
            endpoint(f"c{n + 1}", f"vm{n % hosts + 1}", names[(n // 2) % networks], n)
            for n in range(containers)
        ]
        self.answering = asyncio.Event()  # cleared: it hangs
        self.answering.set()
        self.elsewhere: list[str] = []
        self.health: list[Json] = []
        self.notices: list[Json] = []
        self.events: list[Json] = []
        self.asked: list[str] = []
        self._followers: set[asyncio.Queue[Json | None]] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self.run_dir.mkdir(exist_ok=True)
        await self.start()
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve."""
        application = web.Application()
        application.router.add_get("/v1/events", self._events)
        application.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.run_dir / "api.sock")).start()

    async def stop(self) -> None:
        """Die, and leave the socket."""
        if self._runner is not None:
            for queue in self._followers:
                queue.put_nowait(None)
            self._followers.clear()
            await self._runner.cleanup()
            self._runner = None

    def happen(self, text: str, **fields: Any) -> None:
        """Record an event."""
        event = {"time": time.time(), "kind": "attach", "level": "info", "text": text, **fields}
        self.events.append(event)
        for queue in self._followers:
            queue.put_nowait(event)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        answers: dict[str, Json] = {
            "/v1/status": {
                "version": "0.1.0", "cluster": {"id": "7f3a9c21"}, "vxlan_port": 4789,
                "overlay_mtu": 1450, "health": self.health, "notices": self.notices,
            },
            "/v1/members": {"members": self.members},
            "/v1/endpoints": {"endpoints": self.endpoints, "elsewhere": self.elsewhere},
            "/v1/networks": {"networks": self.networks},
        }  # fmt: skip
        await self.answering.wait()
        if request.path not in answers:
            return web.json_response({"error": {"code": "not-found", "what": "no"}}, status=404)
        return web.json_response(answers[request.path])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        for event in self.events:
            queue.put_nowait(event)
        self._followers.add(queue)
        with contextlib.suppress(ConnectionError):
            while (news := await queue.get()) is not None:
                await response.write(json.dumps(news).encode() + b"\n")
        return response


def story(run_dir: Path) -> FakeCluster:
    """Return three hosts as an operator sees them at 3 a.m.: one path is lost one way."""
    cluster = FakeCluster(run_dir, 3, 0, 3)
    cluster.members = [
        member("vm1", 0),
        member("vm2", 1),
        member("vm3", 2, path={"sending": "lost", "since_s": 41.0}),
    ]
    named = [
        ("web", "vm1", "blue"), ("cache", "vm1", "blue"), ("api", "vm2", "blue"),
        ("api", "vm2", "green"), ("worker", "vm2", "green"), ("db", "vm3", "green"),
        ("backup", "vm3", "backend"), ("metrics", "vm1", "backend"),
    ]  # fmt: skip
    cluster.endpoints = [endpoint(*each, number) for number, each in enumerate(named)]
    cluster.endpoints[0] |= {"aliases": ["www"], "labels": {"team": "shop", "stage": "prod"}}
    cluster.health = [
        {
            "level": "error",
            "text": "vm3 receives no VXLAN from this host, since 41s",
            "hint": "A firewall on vm3 or between the hosts drops UDP 4789: overlayd netcheck vm3",
        }
    ]
    now = time.time()
    cluster.events = [
        {"time": now - 900, "kind": "attach", "level": "info", "network": "blue", "endpoint": "web",
         "text": "docker:web is 10.32.0.2"},
        {"time": now - 300, "kind": "member", "level": "info", "peer": "vm3", "text": "vm3 joined"},
        {"time": now - 41, "kind": "path", "level": "error", "peer": "vm3",
         "text": "VXLAN packets to vm3 are lost"},
        {"time": now - 12, "kind": "attach", "level": "info", "network": "backend",
         "endpoint": "metrics", "text": "docker:metrics is 10.34.0.9"},
    ]  # fmt: skip
    return cluster


def large(run_dir: Path) -> FakeCluster:
    """Return 500 containers on 50 hosts and nine networks, with each state of a path."""
    cluster = FakeCluster(run_dir, 50, 500, 9)
    for number, path in {
        7: {"receiving": "lost"}, 19: {"size_carried": 1400}, 33: {"sending": "unknown"},
        41: {"sending": "silent"},
    }.items():  # fmt: skip
        cluster.members[number]["path"] |= path
    cluster.members[12]["state"] = "suspect"
    cluster.members[28]["state"] = "dead"
    return cluster
