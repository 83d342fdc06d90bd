"""Client of the agent's API: a call returns one JSON object or raises one OverlayError.

Does not: know any verb, or word errors (`api_errors`).
"""

from __future__ import annotations

import json

from overlay import limits
from overlay.client.api_errors import answered_error, connection_error, decoded
from overlay.errors import OverlayError, UsageError
from overlay.unix_http import HttpError, HttpResponse, UnixConnection, quote, send

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from overlay.client.paths import Paths

    JsonObject = dict[str, Any]
else:
    JsonObject = dict

_AS_TYPED = "surrogateescape"  # for bytes of the command line that are not UTF-8

# Longer than the agent's own API_REQUEST_TIMEOUT_S, whose error has more detail.
TIMEOUT_S = limits.API_REQUEST_TIMEOUT_S + 5.0
LOOK_TIMEOUT_S = 5.0  # for answers that change nothing: an agent that needs longer hangs


class ApiClient:
    """Sends requests to the agent that listens on the socket of `paths`."""

    def __init__(self, paths: Paths, timeout_s: float | None = None) -> None:
        self.paths = paths
        self._timeout_s = paths.timeout_s if timeout_s is None else timeout_s

    def get(self, path: str, **query: object) -> JsonObject:
        """Return the answer to a GET, without the parameters that are None."""
        timeout_s = LOOK_TIMEOUT_S if self._timeout_s is None else self._timeout_s
        return self._call("GET", _with_query(path, query), None, timeout_s)

    def look(self, path: str) -> JsonObject:
        """Return the answer to a GET, before which the agent checks its data paths.

        An agent of before knows no such check.
        """
        timeout_s = LOOK_TIMEOUT_S if self._timeout_s is None else self._timeout_s
        try:
            return self.get(path, wait_ms=int(500 * min(timeout_s, LOOK_TIMEOUT_S)))
        except UsageError:
            return self.get(path)

    def get_text(self, path: str) -> str:
        """Return the answer to a GET as it is."""
        timeout_s = LOOK_TIMEOUT_S if self._timeout_s is None else self._timeout_s
        return self._raw("GET", path, None, timeout_s)[0].decode(errors="replace")

    def post(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """Return the answer to a POST of `body`."""
        return self._call("POST", path, body or {}, self._work_timeout_s)

    def delete(self, path: str, **query: object) -> JsonObject:
        """Return the answer to a DELETE, without the parameters that are None."""
        return self._call("DELETE", _with_query(path, query), None, self._work_timeout_s)

    @property
    def _work_timeout_s(self) -> float:
        return TIMEOUT_S if self._timeout_s is None else self._timeout_s

    def answers(self) -> bool:
        """Return whether an agent listens on the socket.

        Raises ForbiddenError if this user may not connect to it.
        """
        connection = UnixConnection(str(self.paths.socket), self._work_timeout_s)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise self._failed(error, self._work_timeout_s) from error
        connection.close()
        return True

    def stream(self, path: str, **query: object) -> Iterator[JsonObject]:
        """Yield the objects of a line-by-line answer until the agent closes it."""
        timeout_s = LOOK_TIMEOUT_S if self._timeout_s is None else self._timeout_s
        connection = UnixConnection(str(self.paths.socket), timeout_s)
        try:
            connection.connect()
            response = self._send(connection, "GET", _with_query(path, query), None)
            connection.wait_forever()  # silence is normal: there are no events
            with response:
                while line := response.readline():
                    if line.strip():
                        yield decoded(line, response.status)
        except (OSError, HttpError) as error:
            raise self._failed(error, timeout_s) from error
        finally:
            connection.close()

    def _call(
        self, method: str, path: str, body: JsonObject | None, timeout_s: float
    ) -> JsonObject:
        return decoded(*self._raw(method, path, body, timeout_s))

    def _raw(
        self, method: str, path: str, body: JsonObject | None, timeout_s: float
    ) -> tuple[bytes, int]:
        """Return the body of an answer and its HTTP status."""
        connection = UnixConnection(str(self.paths.socket), timeout_s)
        try:
            response = self._send(connection, method, path, body)
            return response.read(), response.status
        except (OSError, HttpError) as error:
            raise self._failed(error, timeout_s) from error
        finally:
            connection.close()

    def _send(
        self, connection: UnixConnection, method: str, path: str, body: JsonObject | None
    ) -> HttpResponse:
        raw = None if body is None else json.dumps(body).encode()
        if raw is not None and len(raw) > limits.API_BODY_SIZE_MAX:
            raise UsageError(
                "the request is too large",
                why=f"it has {len(raw)} bytes; the limit is {limits.API_BODY_SIZE_MAX}",
            )
        response = send(connection, method, path, raw)
        if response.status >= 400:
            raise answered_error(response.read(), response.status)
        return response

    def _failed(self, error: Exception, timeout_s: float) -> OverlayError:
        if isinstance(error, HttpError):
            error = ConnectionResetError(str(error) or type(error).__name__)
        return connection_error(error, str(self.paths.socket), str(self.paths.log), timeout_s)


def segment(text: str) -> str:
    """Return `text` quoted as one segment of a URL path."""
    return quote(text, _AS_TYPED)


def _with_query(path: str, query: dict[str, object]) -> str:
    pairs = [
        f"{key}={quote(str(value), _AS_TYPED)}" for key, value in query.items() if value is not None
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path
