"""Access to the page: which users may see it, and from which site.

With a token, everybody needs it: a browser signs in with it once and then has a cookie, a program
sends it with each request. Without one, the page is for local users who may use the agent's API.

Owns: these checks, and sessions. Does not: know what is shown, or serve anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
import weakref
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from overlay import limits
from overlay.agent.process.lean_aiohttp import web
from overlay.errors import ForbiddenError
from overlay.web.loopback_peer import may_look, owner_of

SIGN_IN_PATHS = frozenset({"/sign-in", "/sign-in.css", "/mark.svg"})
_OTHER_SITES = frozenset({"cross-site", "same-site"})  # https://www.w3.org/TR/fetch-metadata/


@dataclass(frozen=True, slots=True)
class WebPolicy:
    """What the operator has decided.

    `token`: required from everybody; None: local users only. `names`: host names under which the
    page is known, besides addresses. `local_users`: also allowed, such as the one who used sudo.
    """

    token: str | None = field(repr=False)
    names: frozenset[str]
    group: str
    local_users: frozenset[int] = frozenset()


class PageAccess:
    """The checks of every request."""

    def __init__(self, policy: WebPolicy, cookie: str) -> None:
        self.cookie = cookie
        self._policy = policy
        self._names = policy.names | {"localhost", socket.gethostname().lower()}
        self._sessions: dict[str, float] = {}  # until when, by the hash of the cookie; oldest first
        self._attempt = asyncio.Lock()
        # Of each connection; it cannot change.
        self._owners: weakref.WeakKeyDictionary[asyncio.Transport, int | None] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def has_token(self) -> bool:
        """Whether everybody needs a token."""
        return self._policy.token is not None

    def require_site(self, request: web.Request) -> None:
        """Raise ForbiddenError for a request that another site has made in somebody's browser.

        A name that is not this host's may be an attacker's that points here (DNS rebinding); for an
        address that is not possible.
        """
        name = (urlsplit(f"//{request.headers.get('Host', '')}").hostname or "").lower()
        if not (_is_address(name) or name in self._names):
            raise ForbiddenError(
                f"the page is not known as '{name[: limits.TEXT_SIZE_MAX]}'",
                why="another site's name may point to this host, to read the page in your browser",
                hint="Use the host's address or name, or start it with: overlayd web --name NAME",
            )
        is_visit = request.headers.get("Sec-Fetch-Mode") == "navigate" and request.method == "GET"
        if request.headers.get("Sec-Fetch-Site") in _OTHER_SITES and not is_visit:
            raise ForbiddenError(
                "another site asked for this", why="the page is for itself only",
                hint="Open the page in a window of its own",
            )  # fmt: skip
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
            raise ForbiddenError(
                "another site asked for this", why=f"it is {origin[: limits.TEXT_SIZE_MAX]}"
            )

    def is_signed_in(self, request: web.Request) -> bool:
        """Return whether a request comes with the token, or with a session's cookie."""
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._is_token(given.strip())
        until = self._sessions.get(_hash(request.cookies.get(self.cookie, "")))
        return until is not None and time.monotonic() < until

    async def sign_in(self, token: str) -> str | None:
        """Return the cookie of a new session; None if the token is wrong.

        Attempts are answered one by one, each wrong one after a pause.
        """
        async with self._attempt:
            if not self._is_token(token.strip()):
                await asyncio.sleep(limits.WEB_SIGN_IN_PAUSE_S)
                return None
        session = secrets.token_urlsafe(32)
        while len(self._sessions) >= limits.WEB_SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_hash(session)] = time.monotonic() + limits.WEB_SESSION_S
        return session

    def sign_out(self, request: web.Request) -> None:
        """End the session of a request."""
        self._sessions.pop(_hash(request.cookies.get(self.cookie, "")), None)

    def require_local_user(self, request: web.Request) -> None:
        """Raise ForbiddenError unless the client is a local user who may use the agent's API."""
        transport = request.transport
        if transport is None:
            raise ForbiddenError("the client has gone")
        if transport not in self._owners:
            self._owners[transport] = owner_of(transport.get_extra_info("socket"))
        uid = self._owners[transport]
        group = self._policy.group
        if uid is None or not (uid in self._policy.local_users or may_look(uid, group)):
            raise ForbiddenError(
                "you may not see this page",
                why=f"without a token it is for root and the group {group} of this host; you are "
                + ("unknown" if uid is None else f"the user with the id {uid}"),
                hint=f"Let root add you to the group {group}, or start it with: "
                "overlayd web --token-file FILE",
            )

    def _is_token(self, given: str) -> bool:
        wanted = self._policy.token
        return wanted is not None and hmac.compare_digest(_digest(given), _digest(wanted))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _hash(cookie: str) -> str:
    return _digest(cookie).hex()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
