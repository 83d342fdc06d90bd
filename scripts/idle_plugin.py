#!/usr/bin/env python3
"""A Docker network plugin that does nothing: what any plugin's network costs `docker run` at least.

It answers each call at once, and has interfaces ready that lead nowhere.
`scripts/bench_docker.py` compares with it. Run as root: idle_plugin.py NAME
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

POOL = "10.78.0.0/16"
READY = 4  # pairs of interfaces
NUMBERS = itertools.count(2)
FIXED: dict[str, dict[str, Any]] = {
    "/Plugin.Activate": {"Implements": ["NetworkDriver", "IpamDriver"]},
    "/IpamDriver.GetCapabilities": {},
    "/IpamDriver.GetDefaultAddressSpaces": {
        "LocalDefaultAddressSpace": "idle",
        "GlobalDefaultAddressSpace": "idle",
    },
    "/IpamDriver.RequestPool": {"PoolID": "pool", "Pool": POOL, "Data": {}},
    "/NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "global"},
    "/NetworkDriver.CreateEndpoint": {"Interface": {"MacAddress": "02:42:0a:4e:00:63"}},
    "/NetworkDriver.EndpointOperInfo": {"Value": {}},
}


class IdlePlugin:
    """The pairs that are ready, and those that containers have."""

    def __init__(self) -> None:
        self._ready: list[str] = []
        self._joined: dict[str, str] = {}

    def prepare(self) -> None:
        """Make pairs of interfaces, until enough are ready."""
        while len(self._ready) < READY:
            name = str(next(NUMBERS))
            add = ["ip", "link", "add", f"idh{name}", "type", "veth", "peer", "name", f"idc{name}"]
            subprocess.run(add, check=True)
            subprocess.run(["ip", "link", "set", f"idh{name}", "up"], check=True)
            self._ready.append(name)

    def answer(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a call."""
        match path:
            case "/IpamDriver.RequestAddress":
                number = next(NUMBERS)
                chosen = f"10.78.{number // 200 + 1}.{number % 200 + 2}"
                return {"Address": (request.get("Address") or chosen) + "/16"}
            case "/NetworkDriver.Join":
                name = self._joined[request["EndpointID"]] = self._ready.pop()
                interface = {"SrcName": f"idc{name}", "DstPrefix": "eth"}
                return {"InterfaceName": interface, "DisableGatewayService": True}
            case "/NetworkDriver.Leave":
                name = self._joined.pop(request["EndpointID"])
                subprocess.run(["ip", "link", "delete", f"idh{name}"], check=True)
                self.prepare()
        return FIXED.get(path, {})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of one connection."""
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                writer.close()
                return
            lines = head.lower().split("\r\n")
            sizes = [line.partition(":")[2] for line in lines if line.startswith("content-length")]
            content = await reader.readexactly(int(sizes[0])) if sizes else b""
            answer = self.answer(head.split()[1], json.loads(content or b"{}"))
            body = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def serve(plugin: IdlePlugin, path: Path) -> None:
    """Serve Docker at a socket."""
    async with await asyncio.start_unix_server(plugin.serve, str(path)) as server:
        await server.serve_forever()


def main() -> None:
    """Serve Docker under the name of the first argument."""
    path = Path("/run/docker/plugins", sys.argv[1] + ".sock")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    plugin = IdlePlugin()
    plugin.prepare()
    asyncio.run(serve(plugin, path))


if __name__ == "__main__":
    main()
