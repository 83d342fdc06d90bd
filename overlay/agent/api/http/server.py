"""The local HTTP API: routes to verbs, errors to answers, who may call what.

Owns: the socket, its permissions, JSON in and out. Must not know: how a verb does its work.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import grp
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from overlay import limits
from overlay.agent.api.http import auth
from overlay.agent.api.schema.openapi import ApiOperation, Verb
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError

_LOG = logging.getLogger("overlayd.api")
SOCKET_NAME = "api.sock"
_REAP_INTERVAL_S = 1.0


class ApiServer:
    """Serves the API on RUN_DIR/api.sock until closed."""

    def __init__(
        self,
        run_dir: Path,
        group: str,
        *,
        request_timeout_s: float = limits.API_REQUEST_TIMEOUT_S,
    ) -> None:
        self.path = run_dir / SOCKET_NAME
        self._group = group
        self._request_timeout_s = request_timeout_s
        self._application = web.Application(
            client_max_size=limits.API_BODY_SIZE_MAX, middlewares=[_as_overlay_error]
        )
        self.operations: list[ApiOperation] = []
        self._runner: web.AppRunner | None = None
        self._bound: tuple[int, int] | None = None  # what tells our socket from another's
        self._busy = 0
        self._asking: collections.Counter[web.RequestHandler] = collections.Counter()
        self._silent: dict[web.RequestHandler, float] = {}  # since when
        self._reaper: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()  # set once the agent has returned to its cluster

    def route(
        self,
        method: str,
        path: str,
        name: str,
        verb: Verb,
        *,
        root: bool = False,
        takes: Any = None,
        asks: Any = None,
        gives: Any = None,
        streams: Any = None,
        unjoined: bool = False,
        fails: tuple[type[OverlayError], ...] = (),
    ) -> None:
        """Serve `verb` under a path; `name` makes the answer's schema, `root` keeps it to uid 0.

        The others are shapes, of the request and the answer, and errors: see `Operation`.
        """
        operation = ApiOperation(
            method, path, name, verb, root, takes, asks, gives, streams, unjoined, fails
        )
        self.operations.append(operation)

        async def handler(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, operation)

        self._application.router.add_route(method, path, handler)

    async def start(self) -> None:
        """Listen; raises ConflictError if another agent does already."""
        self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        await _refuse_second(self.path)
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(str(self.path))
        finally:
            os.umask(mask)
        self._bound = _identity(self.path)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(self.path, 0, grp.getgrnam(self._group).gr_gid)
        self.path.chmod(0o660)
        self._runner = web.AppRunner(self._application, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=limits.API_CLIENTS_MAX).start()
        self._reaper = asyncio.get_running_loop().create_task(self._reap_idle(), name="doorman")

    async def _reap_idle(self) -> None:
        """Close connections that ask nothing: those silent for long, and the oldest of too many."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_REAP_INTERVAL_S)
            assert self._runner is not None, "it stands as long as the socket"
            open_now = [] if self._runner.server is None else self._runner.server.connections
            silent = [each for each in open_now if not self._asking[each]]
            self._silent = {each: self._silent.get(each, loop.time()) for each in silent}
            eldest = sorted(silent, key=lambda each: self._silent[each])
            excess = max(0, len(open_now) - limits.API_CLIENTS_MAX)
            for number, each in enumerate(eldest):
                waited_s = loop.time() - self._silent[each]
                if number < excess or waited_s > limits.API_SILENCE_MAX_S:
                    each.force_close()

    async def close(self) -> None:
        """Stop serving; what is being answered ends first, within a second."""
        if self._bound is not None and self._bound == _identity(self.path):
            self.path.unlink(missing_ok=True)  # never another agent's: this one may be refused
        if self._reaper is not None:
            self._reaper.cancel()
        if self._runner is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._runner.cleanup(), 2.0)

    async def _answer(self, request: web.Request, operation: ApiOperation) -> web.StreamResponse:
        name = operation.name
        if self._busy >= limits.API_CLIENTS_MAX:
            return _failure(
                OverlayError(
                    f"the agent already serves {self._busy} requests",
                    hint="Wait for them and try again",
                )
            )
        self._busy += 1
        handler = request.protocol
        self._asking[handler] += 1
        try:
            auth.require(_caller(request), self._group, name, root=operation.root)
            async with asyncio.timeout(self._request_timeout_s) as limit:
                # A verb that ran before the start is over would act on half a node.
                await self.ready.wait()
                body = await _body(request)
                operation.refuse_unknown(body, dict(request.query))
                if operation.is_stream is not None:
                    limit.reschedule(None)  # it lasts until its reader goes, or the agent
                result = await operation.verb(request, body)
        except OverlayError as error:
            if error.code not in {kind.code for kind in operation.errors()}:
                _LOG.error("defect: %s does not declare that it is %s", name, error.code)
            return _failure(error)
        except TimeoutError:
            return _failure(OverlayError(f"{name} took too long and was given up"))
        except OSError as error:
            _LOG.warning("the host refused something for %s", request.path, exc_info=True)
            return _failure(
                OverlayError(
                    f"{name} failed, for the host refused something",
                    why=error.strerror or str(error),
                    hint="The agent's log has the details. Is the host short of file descriptors "
                    "or memory? Look at `ulimit -n` and `free`",
                )
            )
        except Exception as error:  # noqa: BLE001 - the boundary to people
            # A defect of ours must not look like an empty answer, nor end the agent.
            _LOG.exception("defect while answering %s", request.path)
            return _failure(
                OverlayError(
                    f"{name} failed because of a defect in overlayd",
                    why=f"{type(error).__name__}: {error}",
                    hint="The agent's log has the details; please report it",
                )
            )
        finally:
            self._busy -= 1
            del self._asking[handler]
        if isinstance(result, web.StreamResponse):
            return result
        return web.json_response({"schema": f"overlayd.{name}/v1", **result})


@web.middleware
async def _as_overlay_error(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Say as an error of ours what the router says in its own way: no such path, no such method."""
    asked = request.path[: limits.TEXT_SIZE_MAX]
    hint = "GET /v1/openapi.json lists all"
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        methods = ", ".join(sorted(error.allowed_methods))
        answer = _failure(UsageError(f"{asked} takes {methods}", hint=hint))
        answer.set_status(error.status)
        answer.headers["Allow"] = methods
        return answer
    except web.HTTPNotFound:
        return _failure(NotFoundError(f"the API has no path {asked}", hint=hint))


def _failure(error: OverlayError) -> web.Response:
    return web.json_response({"error": error.body()}, status=error.http_status)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        size = limits.API_BODY_SIZE_MAX
        raise UsageError(f"the request's body is larger than {size} bytes") from error
    if not raw:
        return {}
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise UsageError("the request's body is not JSON", why=str(error)) from error
    except RecursionError as error:
        raise UsageError("the request's body is nested too deeply") from error
    if not isinstance(value, dict):
        raise UsageError("the request's body must be a JSON object")
    return value


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from others; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _caller(request: web.Request) -> auth.ApiCaller:
    """Return who is at the other end."""
    transport = request.transport
    return auth.caller_of(transport.get_extra_info("socket") if transport else None)


async def _refuse_second(path: Path) -> None:
    """Raise ConflictError if the socket answers: it belongs to a live agent."""
    try:
        _, writer = await asyncio.wait_for(asyncio.open_unix_connection(str(path)), 1.0)
    except (OSError, TimeoutError):
        return
    writer.close()
    raise ConflictError(
        f"another agent already serves {path}",
        hint="'overlayd status' shows it; a second agent needs its own --run-dir and --state-dir",
    )
