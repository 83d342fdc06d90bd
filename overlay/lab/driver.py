"""Drive a lab host's agent: start it, end it, call its API.

For tests in which agents die: the command line takes a second of interpreter start per request, the
socket a millisecond.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from overlay.errors import OverlayError, TimedOutError
from overlay.lab import host_process, underlay
from overlay.lab.host_process import HostProcess
from overlay.unix_http import HttpError, UnixConnection, send

Json = dict[str, Any]
LOG = "/run/overlayd/agent.log"
START_TIMEOUT_S = 600.0  # an emulated, loaded machine; a start takes about a second elsewhere
WAIT_S = 60.0  # a machine whose cores several labs share; what is waited for takes a second or two
_CATCH_UP_S = 20.0
_LOOK_TIMEOUT_S = 2.0  # of one look at an agent that may be stopped
_REQUEST_TIMEOUT_S = 120.0
_POLL_S = 0.02


class ApiRefusedError(OverlayError):
    """The agent refused a request; `status` and `answer` are its response."""

    def __init__(self, status: int, answer: Json) -> None:
        self.status = status
        self.answer = answer
        super().__init__(f"{status}: {answer}")


def wait_until(condition: Callable[[], bool], awaited: str, timeout_s: float = WAIT_S) -> float:
    """Poll until a condition holds; return the seconds it took.

    Raises TimedOutError. `awaited` describes the condition in the error.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started >= timeout_s:
            raise TimedOutError(f"timed out after {timeout_s:.0f} s: {awaited}")
        time.sleep(_POLL_S)
    return time.monotonic() - started


def lasting(look: Callable[[], list[Any]]) -> list[Any]:
    """Return what a look goes on finding; nothing, as soon as it finds nothing.

    For what may be true for a moment while a change arrives: a difference, a complaint.
    """
    deadline = time.monotonic() + WAIT_S
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return found


class AgentDriver:
    """One lab host, and the agent that this process started there."""

    def __init__(self, host: HostProcess, number: int) -> None:
        self.host = host
        self.number = number
        self.address = underlay.address_of(number)
        self._process: subprocess.Popen[bytes] | None = None

    # --- the process --------------------------------------------------------------------

    def start(self, *options: str, **environment: str) -> None:
        """Start an agent and wait until it responds."""
        self.launch(*options, **environment)
        wait_until(self._responds, f"{self.host.name}'s agent responds", START_TIMEOUT_S)

    def launch(self, *options: str, **environment: str) -> None:
        """Start an agent without waiting for it."""
        self.run("mkdir", "-p", "/run/overlayd")
        # With -P and as a module, as `overlayd join` starts it.
        agent = [sys.executable, "-P", "-m", "overlay.cli.main", "agent", *options]
        words = ["sh", "-c", f'exec "$@" >>{LOG} 2>&1', "sh", *agent]
        self._process = subprocess.Popen(
            host_process.enter_command(self.host, words),
            stdin=subprocess.DEVNULL,
            env=host_process.environment() | environment,
            start_new_session=True,
            cwd="/",
        )

    def _responds(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            code, log = self._process.returncode, self.log_tail()
            raise OverlayError(f"{self.host.name}'s agent ended with exit code {code}", why=log)
        try:
            self.get("/v1/status")
        except OSError:
            return False
        return True

    def pid(self) -> int:
        """Return the agent's process id in this machine's namespace.

        Returns 0 if it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            return 0
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):
            found = path.read_text(encoding="ascii").split()
            return int(found[0]) if found else 0
        return 0

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent, if it runs."""
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if self._process is not None and number is not signal.SIGSTOP:
            # nsenter(1) stops together with its child; it must continue to see the child end.
            self._process.send_signal(signal.SIGCONT)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End the agent with a signal; return its exit code."""
        self.send_signal(number)
        return self.wait()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait until the agent has ended.

        Returns its exit code, 0 if there was none.
        """
        if self._process is None:
            return 0
        code = self._process.wait(timeout_s)
        self._process = None
        return code

    # --- requests -----------------------------------------------------------------------

    def call(
        self, method: str, path: str, body: Json | None = None,
        timeout_s: float = _REQUEST_TIMEOUT_S,
    ) -> Json:  # fmt: skip
        """Send a request to the agent; return its response.

        Raises ApiRefusedError if the agent refuses, OSError if there is no response.
        """
        socket = f"/proc/{self.host.pid}/root/run/overlayd/api.sock"
        connection = UnixConnection(socket, timeout_s)
        raw = None if body is None else json.dumps(body).encode()
        try:
            response = send(connection, method, path, raw)
            answer: Json = json.loads(response.read())
        except HttpError as error:
            raise ConnectionError(f"the agent ended meanwhile: {error!r}") from error
        finally:
            connection.close()
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise ApiRefusedError(response.status, answer.get("error", answer))
        return answer

    def get(self, path: str) -> Json:
        """Send a GET request."""
        return self.call("GET", path)

    def post(self, path: str, **body: Any) -> Json:
        """Send a POST request with a JSON body."""
        return self.call("POST", path, body)

    def run(self, *command: str) -> str:
        """Run a command on the host; return its output.

        Raises OverlayError if it fails.
        """
        done = host_process.run(self.host, *command)
        if done.returncode:
            raise OverlayError(
                f"{' '.join(command)!r} failed on {self.host.name}",
                why=(done.stderr or done.stdout).strip()[-800:],
            )
        return done.stdout

    def log_tail(self) -> str:
        """Return the last lines of the agent's log."""
        return host_process.run(self.host, "tail", "-n", "40", LOG).stdout


def connect(hosts: list[HostProcess]) -> list[AgentDriver]:
    """Return a driver for each host, numbered from 1."""
    return [AgentDriver(host, number) for number, host in enumerate(hosts, start=1)]


def end_all(drivers: list[AgentDriver]) -> None:
    """End the agents, and all lab hosts with them."""
    for driver in drivers:
        driver.end()
    host_process.end(host_process.running())


def join_all(drivers: list[AgentDriver], **environment: str) -> None:
    """Start an agent on each host, and join all of them to a cluster."""
    for driver in drivers:
        driver.launch(**environment)
    for driver in drivers:
        wait_until(driver._responds, f"{driver.host.name}'s agent", START_TIMEOUT_S)  # noqa: SLF001
    drivers[0].post("/v1/join")
    token = drivers[0].get("/v1/token")["token"]
    for driver in drivers[1:]:
        driver.post("/v1/join", peers=[drivers[0].address], token=token)


def catch_up(names: Iterable[str], ip: str) -> None:
    """Wait a while for hosts that had not confirmed an endpoint when its attach returned.

    An attach waits a second for the others, which is little on a loaded machine. Agents that are
    dead, stopped or cut off don't catch up: no error.
    """
    for host in host_process.running():
        if host.name in names:
            driver = AgentDriver(host, 0)
            with contextlib.suppress(OSError, OverlayError):
                wait_until(partial(_reaches, driver, ip), f"{host.name} knows {ip}", _CATCH_UP_S)


def _reaches(driver: AgentDriver, ip: str) -> bool:
    """Return whether a host knows an endpoint, and its kernel is as planned."""
    shown = driver.call("GET", "/v1/endpoints", timeout_s=_LOOK_TIMEOUT_S)["endpoints"]
    return any(ip in each["ips"] for each in shown) and not differences(driver)


def differences(driver: AgentDriver) -> list[Json]:
    """Return a host's differences, as `overlayd verify` does."""
    found: list[Json] = driver.get("/v1/verify")["differences"]
    return found


def endpoints(driver: AgentDriver) -> list[tuple[str, str, str]]:
    """Return (name, address, host) of every endpoint that a host knows."""
    shown = driver.get("/v1/endpoints")["endpoints"]
    return sorted((each["name"], each["ips"][0], each["node"]) for each in shown)
