"""Debian's Chromium without a window, driven by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

START_TIMEOUT_S = 60.0
WAIT_S = 60.0  # a loaded machine
Json = dict[str, Any]
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-port=0", "about:blank",
)  # fmt: skip


class NavigatedError(Exception):
    """The page went elsewhere before a command had its answer."""


class Tab:
    """One page of the browser; `console` has its errors, `requested` the addresses it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.console: list[str] = []
        self.requested: list[str] = []
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._number = 0

    async def read(self) -> None:
        """Take answers and events until the browser ends."""
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._waiting.pop(found["id"]).set_result(found)
            elif found["method"] == "Log.entryAdded":
                self.console.append(found["params"]["entry"]["text"])
            elif found["method"] == "Runtime.exceptionThrown":
                self.console.append(json.dumps(found["params"]["exceptionDetails"]))
            elif found["method"] == "Network.requestWillBeSent":
                self.requested.append(found["params"]["request"]["url"])

    async def call(self, method: str, **parameters: Any) -> Json:
        """Return the result of a command.

        Raises NavigatedError if the page went elsewhere meanwhile.
        """
        self._number += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = future
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(future, START_TIMEOUT_S)
        if "navigated or closed" in answer.get("error", {}).get("message", ""):
            raise NavigatedError(method)
        assert "error" not in answer, (method, answer)
        found: Json = answer["result"]
        return found

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, as JSON has it."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true, on whatever page; return its value."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while True:
            with contextlib.suppress(NavigatedError):
                if value := await self.evaluate(expression):
                    return value
            assert asyncio.get_running_loop().time() < deadline, f"in vain: {expression}"
            await asyncio.sleep(0.05)

    async def open(self, url: str) -> None:
        """Go to an address, and wait for the page."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def size(self, width: int, height: int, *, scale: float = 1) -> None:
        """Give the window a size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=False,
        )  # fmt: skip

    async def prefer(self, **features: str) -> None:
        """Set media features, such as `prefers_color_scheme="dark"`."""
        chosen = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        await self.call("Emulation.setEmulatedMedia", features=chosen)

    async def press(self, key: str, **fields: Any) -> None:
        """Press and release a key."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(key, ord(key[0].upper()))
        common = {"key": key, "windowsVirtualKeyCode": code, **fields}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def screenshot(self) -> bytes:
        """Return a picture of the window (PNG)."""
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """Run a browser with one empty page."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed: scripts/setup installs it"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program, f"--user-data-dir={profile}", *OPTIONS,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            address = await asyncio.wait_for(_devtools_address(process), START_TIMEOUT_S)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://{address}/json/list") as response:
                    (page,) = [each for each in await response.json() if each["type"] == "page"]
                url = page["webSocketDebuggerUrl"]
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    tab = Tab(socket)
                    reader = asyncio.create_task(tab.read())
                    for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
                        await tab.call(f"{domain}.enable")
                    yield tab
                    reader.cancel()
        finally:
            process.terminate()
            await process.communicate()


async def _devtools_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb"DevTools listening on ws://([^/]+)/", line):
            return found[1].decode()
    raise AssertionError("the browser did not start")
