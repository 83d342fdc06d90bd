"""The local HTTP API: the socket, who may call, requests to handlers, errors to responses.

Owns: the socket and its permissions, peer credentials, JSON in and out.
Does not: know how a handler does its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from overlay import limits, public_files
from overlay.agent.api.http.caller import ApiCaller, caller_of, require_caller
from overlay.agent.api.http.operation import ApiOperation, Handler
from overlay.agent.api.http.slots import RequestSlot, RequestSlots
from overlay.agent.api.schema.decoder import decode, decode_query
from overlay.agent.api.schema.field_types import EmptyRequest, Request
from overlay.agent.process import unix_listener
from overlay.agent.process.idle_connections import IdleConnections
from overlay.agent.process.lean_aiohttp import web
from overlay.agent.process.tasks import report_defect
from overlay.errors import (
    ConflictError,
    NotFoundError,
    OverlayError,
    UsageError,
    defect_error,
    shortage_hint,
)

_LOG = logging.getLogger("overlayd.api")
SOCKET_NAME = "api.sock"
_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}
_JSON_LINES: Final = {"Content-Type": "application/x-ndjson"}


class ApiServer:
    """Serves the API on RUN_DIR/api.sock until closed."""

    def __init__(
        self,
        run_dir: Path,
        group: str,
        *,
        is_group_trusted: bool = False,
        request_timeout_s: float = limits.API_REQUEST_TIMEOUT_S,
    ) -> None:
        self.path = run_dir / SOCKET_NAME
        self._group = group
        self._is_group_trusted = is_group_trusted
        self._request_timeout_s = request_timeout_s
        self._application = web.Application(
            client_max_size=limits.API_BODY_SIZE_MAX, middlewares=[_as_overlay_error]
        )
        self.operations: list[ApiOperation] = []
        self._runner = web.AppRunner(self._application, access_log=None, handle_signals=False)
        self._connections = IdleConnections(
            self._runner, limits.API_CLIENTS_MAX, limits.API_SILENCE_MAX_S
        )
        self._bound: tuple[int, int] | None = None  # tells this socket from another agent's
        self._site: web.SockSite | None = None
        self._watch: asyncio.Task[None] | None = None
        self._slots = RequestSlots()
        self.ready = asyncio.Event()  # set once the agent has returned to its cluster

    def route(
        self,
        method: str,
        path: str,
        name: str,
        handler: Handler,
        *,
        root: bool = False,
        request: type[Request] | None = None,
        query: type[Request] | None = None,
        response: Any = None,
        stream: Any = None,
        works_unjoined: bool = False,
        needs_caller: bool = False,
        errors_raised: tuple[type[OverlayError], ...] = (),
    ) -> None:
        """Serve a handler under a path; `root` restricts it to uid 0.

        `name` makes the `schema` of the response: see `ApiOperation`, also for the rest.
        """
        operation = ApiOperation(
            method,
            path,
            name,
            handler,
            root,
            request,
            query,
            response,
            stream,
            works_unjoined,
            needs_caller,
            errors_raised,
        )
        self.operations.append(operation)

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, operation)

        self._application.router.add_route(method, path, answer)

    async def start(self) -> None:
        """Listen; raises ConflictError if another agent does already."""
        public_files.make_directory(self.path.parent)
        if await unix_listener.is_served(self.path):
            raise ConflictError(
                f"another agent already serves {self.path}",
                hint="'overlayd status' shows it; a second agent needs its own --run-dir and "
                "--state-dir",
            )
        await self._runner.setup()
        await self._listen()
        self._connections.start()
        self._watch = asyncio.get_running_loop().create_task(self._restore(), name="api-socket")

    async def _listen(self) -> None:
        """Listen at the path, in place of any other socket there."""
        if self._site is not None:
            former, self._site = self._site, None
            await former.stop()
        listener = unix_listener.bind(self.path)
        try:
            self._bound = _identity(self.path)
            with contextlib.suppress(KeyError, PermissionError):
                os.chown(self.path, 0, grp.getgrnam(self._group).gr_gid)
            self.path.chmod(0o660)
            site = web.SockSite(self._runner, listener, backlog=limits.API_CLIENTS_MAX)
            await site.start()
        except BaseException:
            listener.close()
            self.path.unlink(missing_ok=True)  # else it would look as if somebody listened
            raise
        self._site = site

    async def _restore(self) -> None:
        """Listen anew when something else has removed the socket, such as a cleanup of /run.

        Nobody could reach the agent, and another one would be refused as its state is in use.
        """
        logged = ""
        while True:
            await asyncio.sleep(limits.API_SOCKET_CHECK_S)
            if _identity(self.path) is not None:
                continue
            try:
                public_files.make_directory(self.path.parent)
                await self._listen()
            except OSError as error:
                if logged != str(error):
                    _LOG.warning("%s is gone, and cannot be made again: %s", self.path, error)
                    logged = str(error)
            else:
                _LOG.warning("%s was removed by another program: made again", self.path)
                logged = ""

    async def close(self) -> None:
        """Stop serving; requests in progress may finish within two seconds."""
        if self._bound is not None and self._bound == _identity(self.path):
            self.path.unlink(missing_ok=True)  # never another agent's: this one may be refused
        if self._watch is not None:
            self._watch.cancel()
        self._connections.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._runner.cleanup(), 2.0)

    async def _answer(self, request: web.Request, operation: ApiOperation) -> web.StreamResponse:
        name = operation.name
        try:
            with self._connections.serving(request.protocol):
                caller = caller_of(request, is_group_trusted=self._is_group_trusted)
                require_caller(caller, self._group, name, root=operation.root)
                with self._slots.take(caller.uid) as slot:
                    return await self._serve(request, operation, caller, slot)
        except OverlayError as error:
            if error.code not in {kind.code for kind in operation.errors()}:
                _LOG.error("defect: %s does not declare the error %s", name, error.code)
            return _failure(error)
        except TimeoutError:
            return _failure(
                OverlayError(
                    f"{name} took too long and was canceled",
                    why=f"a request has {self._request_timeout_s:.0f} s",
                    hint="Try again; 'overlayd status' shows what is wrong with this host",
                )
            )
        except OSError as error:
            _LOG.warning("the operating system failed %s", request.path, exc_info=True)
            return _failure(
                OverlayError(
                    f"{name} failed: the operating system reported an error",
                    why=error.strerror or str(error),
                    hint=shortage_hint(error) or "The agent's log has the details",
                )
            )
        except Exception as error:  # noqa: BLE001 - the boundary to people
            # A defect must not look like an empty response, nor end the agent.
            report_defect(f"defect while answering {request.path}", error)
            return _failure(defect_error(name, error))

    async def _serve(
        self,
        request: web.Request,
        operation: ApiOperation,
        caller: ApiCaller,
        slot: RequestSlot,
    ) -> web.StreamResponse:
        """Call the handler in the place that the request has; raises its errors."""
        async with asyncio.timeout(self._request_timeout_s) as limit:
            # A handler that runs before the start is complete would act on half a node.
            await self.ready.wait()
            arguments = await _arguments(request, operation, caller)
            result = await operation.handler(*arguments)
            if isinstance(result, AsyncGenerator):
                slot.follow()
                limit.reschedule(None)  # it lasts until its reader or the agent ends it
            return await _response(request, operation.name, result)


async def _arguments(request: web.Request, operation: ApiOperation, caller: ApiCaller) -> list[Any]:
    """Return what a handler is called with; raises UsageError for what it does not declare."""
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise UsageError(
            f"the request body is larger than {limits.API_BODY_SIZE_MAX} bytes"
        ) from error
    body = decode(operation.request or EmptyRequest, raw)
    query = decode_query(operation.query or EmptyRequest, dict(request.query))
    return [
        *request.match_info.values(),
        *([] if operation.request is None else [body]),
        *([] if operation.query is None else [query]),
        *([caller] if operation.needs_caller else []),
    ]


async def _response(request: web.Request, name: str, result: Any) -> web.StreamResponse:
    """Return a handler's result as a response; a generator is sent line by line."""
    if isinstance(result, web.StreamResponse):
        return result
    if not isinstance(result, AsyncGenerator):
        document = {"schema": f"overlayd.{name}/v1", **result}
        return web.Response(body=msgspec.json.encode(document), headers=_JSON)
    response = web.StreamResponse(headers=_JSON_LINES)
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):
        async with contextlib.aclosing(result) as lines:
            async for line in lines:
                # aiohttp does not report a reader that left: a generator without news yields None
                # now and then, so that this is noticed.
                if request.transport is None:
                    break
                if line is not None:
                    await response.write(msgspec.json.encode(line) + b"\n")
    return response


@web.middleware
async def _as_overlay_error(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn the router's refusals, of a path or a method, into errors of the API."""
    path = request.path[: limits.TEXT_SIZE_MAX]
    hint = "GET /v1/openapi.json lists all paths"
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        methods = ", ".join(sorted(error.allowed_methods))
        response = _failure(
            UsageError(f"{request.method} is not allowed on {path}", why=f"allowed: {methods}",
                       hint=hint)
        )  # fmt: skip
        response.set_status(error.status)
        response.headers["Allow"] = methods
        return response
    except web.HTTPNotFound:
        return _failure(NotFoundError(f"the API has no path {path}", hint=hint))


def _failure(error: OverlayError) -> web.Response:
    body = msgspec.json.encode({"schema": "overlayd.error/v1", "error": error.body()})
    return web.Response(body=body, headers=_JSON, status=error.http_status)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return a file's device and inode; None if it does not exist."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)
