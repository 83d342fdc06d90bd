"""The page's HTTP server: its files, the state, the stream, and signing in.

Owns: paths, headers, and the bounds of requests. Does not: know who may look (`access`), or
what is shown (`cluster_watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from overlay import limits
from overlay.agent.process.idle_connections import IdleConnections
from overlay.agent.process.lean_aiohttp import web
from overlay.client.graph.colors import COLORS
from overlay.errors import OverlayError, UsageError
from overlay.web.access import SIGN_IN_PATHS, PageAccess
from overlay.web.cluster_watch import ClusterWatch
from overlay.web.streams import PageStreams

_FILES: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "overlayd",
}
_NO_STORE: Final = {"Cache-Control": "no-store"}
_STREAM: Final = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", **_NO_STORE}
_PROBLEM: Final = "<!-- problem -->"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """Serves the page on a socket until closed."""

    def __init__(self, access: PageAccess, watch: ClusterWatch, streams: PageStreams) -> None:
        self._access = access
        self._watch = watch
        self._streams = streams
        self._active = 0
        self._files = _read_files(has_sign_out=access.has_token)
        application = web.Application(
            client_max_size=limits.WEB_BODY_SIZE_MAX, middlewares=[self._guard]
        )
        application.on_response_prepare.append(_add_headers)
        router = application.router
        for path in ("/", *(path for path in self._files if path != "/sign-in.html")):
            router.add_get(path, self._file)
        router.add_get("/state", self._state)
        router.add_get("/stream", self._stream, allow_head=False)
        if access.has_token:
            router.add_get("/sign-in", self._sign_in_page)
            router.add_post("/sign-in", self._sign_in)
            router.add_post("/sign-out", self._sign_out)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        self._connections = IdleConnections(
            self._runner, limits.WEB_REQUESTS_MAX, limits.WEB_SILENCE_MAX_S
        )

    async def start(self, listener: socket.socket) -> None:
        """Serve on a listening socket."""
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        self._connections.start()

    async def close(self) -> None:
        """Stop serving, at once."""
        self._connections.stop()
        self._streams.end()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._runner.cleanup(), 2.0)

    # --- every request ------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        with self._connections.serving(request.protocol):
            self._active += 1
            try:
                if self._active > limits.WEB_REQUESTS_MAX:
                    return _plain(503, "too many requests at once; try again\n")
                return await self._checked(request, handler)
            except OverlayError as error:
                return _failure(error)
            except web.HTTPMethodNotAllowed as error:
                allowed = ", ".join(sorted(error.allowed_methods))
                response = _plain(405, f"{request.method} is not allowed: the page only looks\n")
                response.headers["Allow"] = allowed
                return response
            except web.HTTPNotFound:
                return _plain(404, "there is no such page; it is at /\n")
            except web.HTTPRequestEntityTooLarge:
                return _plain(413, f"a request has at most {limits.WEB_BODY_SIZE_MAX} bytes\n")
            except TimeoutError:
                return _plain(408, "the request took too long\n")
            finally:
                self._active -= 1

    async def _checked(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        access = self._access
        access.require_site(request)
        if not access.has_token:
            access.require_local_user(request)
        elif request.path not in SIGN_IN_PATHS and not access.is_signed_in(request):
            if request.path == "/":
                return web.Response(status=303, headers={"Location": "/sign-in", **_NO_STORE})
            response = _plain(401, "sign in at /sign-in, or send the token as a bearer\n")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if request.path == "/stream":
            return await handler(request)
        async with asyncio.timeout(limits.WEB_REQUEST_TIMEOUT_S):
            return await handler(request)

    # --- files --------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = "/index.html" if request.path == "/" else request.path
        raw, kind, tag = self._files[name]
        headers = {"Content-Type": kind, "ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=raw, headers=headers)

    # --- the cluster --------------------------------------------------------------------

    async def _state(self, _request: web.Request) -> web.StreamResponse:
        """Answer with the whole state once, for programs."""
        await self._watch.refresh()
        state = {"schema": "overlayd.web-state/v1", **self._watch.state()}
        return web.Response(
            body=msgspec.json.encode(state),
            headers={"Content-Type": "application/json; charset=utf-8", **_NO_STORE},
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise UsageError("the client has gone")
        stream = self._streams.open(transport.abort)
        try:
            response = web.StreamResponse(headers=_STREAM)
            await response.prepare(request)
            await response.write(b"retry: 2000\n\n")
            self._watch.greet(stream)
            with contextlib.suppress(ConnectionError):
                async for message in stream.messages():
                    await response.write(message)
            return response
        finally:
            self._streams.close(stream)

    # --- signing in ---------------------------------------------------------------------

    async def _sign_in_page(self, _request: web.Request) -> web.StreamResponse:
        return self._form(200, "")

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        fields = await request.post()
        token = fields.get("token")
        session = await self._access.sign_in(token) if isinstance(token, str) else None
        if session is None:
            return self._form(403, "This is not the token of this page.")
        response = web.Response(status=303, headers={"Location": "/", **_NO_STORE})
        response.set_cookie(
            self._access.cookie, session, path="/", httponly=True, samesite="Strict",
            max_age=int(limits.WEB_SESSION_S), secure=request.secure,
        )  # fmt: skip
        return response

    async def _sign_out(self, request: web.Request) -> web.StreamResponse:
        self._access.sign_out(request)
        response = web.Response(status=303, headers={"Location": "/sign-in", **_NO_STORE})
        response.del_cookie(self._access.cookie, path="/")
        return response

    def _form(self, status: int, problem: str) -> web.Response:
        shown = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
        text = self._files["/sign-in.html"][0].decode().replace(_PROBLEM, shown)
        headers = {"Content-Type": _TYPES[".html"], **_NO_STORE}
        return web.Response(status=status, text=text, headers=headers)


def _read_files(*, has_sign_out: bool) -> dict[str, tuple[bytes, str, str]]:
    """Return content, type and tag of each file of the page, by its path; no other is served."""
    contents = {
        f"/{path.relative_to(_FILES)}": path.read_bytes()
        for path in sorted(_FILES.rglob("*"))
        if path.suffix in _TYPES
    }
    contents["/colors.css"] = _color_rules().encode()
    if has_sign_out:
        page = contents["/index.html"]
        contents["/index.html"] = page.replace(b'action="/sign-out" hidden', b'action="/sign-out"')
    return {
        path: (raw, _TYPES[Path(path).suffix], f'"{hashlib.sha256(raw).hexdigest()[:32]}"')
        for path, raw in contents.items()
    }


def _color_rules() -> str:
    """Return a style for each color of networks, which all pictures share."""
    rules = [f".color-{number} {{ --network: {each}; }}" for number, each in enumerate(COLORS)]
    return "\n".join(rules) + "\n"


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _plain(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=_NO_STORE)


def _failure(error: OverlayError) -> web.Response:
    return _plain(error.http_status, error.report() + "\n")
