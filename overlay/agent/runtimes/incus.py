"""Find an Incus container, by the API on Incus's socket. Everything here blocks."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from overlay.agent.runtimes.engines import ANSWER_SIZE_MAX, ANSWER_TIMEOUT_S, EngineContainer
from overlay.errors import ConflictError, OverlayError
from overlay.unix_http import HttpError, UnixConnection, quote, send

SOCKET: Final = Path("/var/lib/incus/unix.socket")
DEFAULT_PROJECT: Final = "default"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UUID_KEY: Final = "volatile.uuid"


class IncusEngine:
    """The containers of Incus."""

    kind = "incus"
    title = "Incus"

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket

    def absence(self) -> str | None:
        """Return that Incus is not running if its socket does not exist."""
        return None if self._socket.exists() else f"Incus is not running: no {self._socket}"

    def find(self, name: str) -> EngineContainer | None:
        """Return an instance by `NAME`, `PROJECT/NAME`, or the UUID that it keeps when renamed.

        Raises ConflictError for a virtual machine, OverlayError if Incus does not answer.
        """
        if not self._socket.exists():
            return None
        project, _, instance = name.rpartition("/")
        found = self._get(f"{quote(instance)}?project={_quoted(project)}")
        if found is None and _UUID.fullmatch(name):
            listed = self._get("?recursion=1&all-projects=true") or []
            same = (each for each in listed if each["config"].get(_UUID_KEY) == name)
            found = next(same, None)
        return None if found is None else self._container(found)

    def _container(self, found: Any) -> EngineContainer | None:
        name, project = str(found["name"]), str(found.get("project") or DEFAULT_PROJECT)
        shown = name if project == DEFAULT_PROJECT else f"{project}/{name}"
        if found.get("type") == "virtual-machine":
            raise ConflictError(
                f"incus:{shown} is a virtual machine",
                why="it has no network namespace on this host",
                hint="Join it to the cluster as a host of its own: overlayd join, inside it",
            )
        state = self._get(f"{quote(name)}/state?project={_quoted(project)}")
        if state is None:
            return None  # removed meanwhile
        pid = int(state["pid"])
        status = str(state["status"]).lower()
        container_id = str(found["config"].get(_UUID_KEY) or shown)
        return EngineContainer(self.kind, shown, container_id, pid if pid > 0 else None, status)

    def _get(self, rest: str) -> Any:
        """Return what the API answers about instances; None if there is no such instance."""
        connection = UnixConnection(str(self._socket), ANSWER_TIMEOUT_S)
        path = "/1.0/instances" + (rest if rest.startswith("?") else f"/{rest}")
        try:
            with send(connection, "GET", path) as response:
                answer = json.loads(response.read(ANSWER_SIZE_MAX))
            if response.status == HTTPStatus.NOT_FOUND:
                return None
            if response.status != HTTPStatus.OK:
                raise OverlayError(
                    "Incus rejected the query",
                    why=str(answer.get("error")),
                    hint="Ask it yourself: incus list",
                )
            return answer["metadata"]
        except (OSError, HttpError, ValueError, LookupError, AttributeError) as error:
            raise OverlayError(
                f"Incus does not answer on {self._socket}",
                why=str(error) or type(error).__name__,
                hint="Restart Incus, or name the container's process instead: pid:N",
            ) from error
        finally:
            connection.close()


def _quoted(project: str) -> str:
    return quote(project or DEFAULT_PROJECT)
