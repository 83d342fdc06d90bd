"""Send one real packet along a traced way, and see how far it gets.

Owns: the attempt and its sentence. An echo request carries a mark of 8 random bytes, by which it
and its answer are seen as they pass the interfaces of both containers and hosts; a TCP connection
is only opened. Does not: say where a packet was seen last (`last_seen`).
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import NamedTuple

from overlay.cli.packets import namespace
from overlay.cli.packets.last_seen import OUTSIDE, last_seen
from overlay.client.api import LOOK_TIMEOUT_S, ApiClient, JsonObject
from overlay.errors import NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.icmp_echo import IcmpEcho
from overlay.kernel.way_taps import WayTaps
from overlay.model import parse_ip

WAIT_S = 2.0
_SIZE = 56


class _Done(NamedTuple):
    """How a packet fared; `problem` is empty if it was answered."""

    problem: str
    seconds: float = 0.0
    seen: str = ""


def attempt(client: ApiClient, found: JsonObject) -> JsonObject | None:
    """Return how one packet fared; None where sending one says nothing, as for UDP.

    `found` is the answer of GET /v1/trace.
    """
    source, target, port = found["source"], found["target"], found["port"]
    is_tcp = found["protocol"] == "tcp" and port is not None
    if found["protocol"] != "icmp" and not is_tcp:
        return None
    what = f"a connection to TCP port {port}" if is_tcp else "an echo request"
    try:
        way = client.get(
            "/v1/ping", source=source["ip"], target=target["ip"], network=found["network"]
        )
        with namespace.opened(way) as descriptor:
            done = (
                _connect(descriptor, source["ip"], target["ip"], port)
                if is_tcp
                else _echo(client, descriptor, way)
            )
    except NotFoundError:
        text = f"not tried: {source['name']} is on {source['node']}, run the command there"
        return _result(what, None, None, text)
    except OverlayError as error:
        return _result(what, None, None, f"not tried: {error.what}")
    except OSError as error:  # the source cannot even open a socket
        return _result(what, None, None, f"not tried: {error.strerror or error}")
    if done.problem:
        return _result(what, False, None, f"{what} failed: {done.problem}", done.seen)
    took_ms = round(done.seconds * 1000, 3)
    return _result(what, True, took_ms, f"{what} was answered in {took_ms:.3f} ms")


def _result(
    what: str, answered: bool | None, ms: float | None, text: str, seen: str = ""
) -> JsonObject:
    return {
        "what": what,
        "answered": answered,
        "ms": ms,
        "text": text,
        "last_seen": seen or None,
    }


def _echo(client: ApiClient, descriptor: int | None, way: JsonObject) -> _Done:
    """Send a marked echo request; raises OSError."""
    source, target = parse_ip(way["source"]["ip"]), parse_ip(way["target"]["ip"])
    vtep = way["way"]["local_vtep"]
    with contextlib.ExitStack() as undo:
        echo = undo.enter_context(contextlib.closing(IcmpEcho(descriptor, source, target, _SIZE)))
        taps = WayTaps(descriptor, echo.token, target, parse_ip(vtep) if vtep else None)
        undo.enter_context(contextlib.closing(taps))
        far = _far_sightings(client, way, echo.token)  # it watches from now on
        refusal = echo.send(1)
        if refusal:
            return _Done(refusal)
        answer = echo.wait(time.monotonic() + WAIT_S)
        if answer is not None and not answer.problem:
            return _Done("", answer.seconds)
        if far["state"] == "capturing":
            far = _far_sightings(client, way, echo.token)
        seen = last_seen(way, taps.sightings(), far)
        if way["target"]["kind"] == OUTSIDE and vtep:
            seen += _underlay(vtep, way["way"]["peer_vtep"])
    return _Done(f"no answer within {WAIT_S:g} s" if answer is None else answer.problem, seen=seen)


def _underlay(own: str, vtep: str) -> str:
    """Return whether an outside VTEP answers on the underlay, to go on after what was seen."""
    try:
        with contextlib.closing(IcmpEcho(None, parse_ip(own), parse_ip(vtep), _SIZE)) as echo:
            refusal = echo.send(1)
            answer = None if refusal else echo.wait(time.monotonic() + WAIT_S)
    except OSError:
        return ""
    answers = answer is not None and not answer.problem
    return f"; {vtep} itself {'answers' if answers else 'does not answer'} echo requests"


def _far_sightings(client: ApiClient, way: JsonObject, mark: bytes) -> JsonObject:
    """Return what was seen at the target's end."""
    if way["target"]["kind"] == OUTSIDE:
        return {"node": way["target"]["node"], "state": OUTSIDE, "sightings": []}
    limit_s = client.paths.timeout_s
    looking = ApiClient(client.paths, LOOK_TIMEOUT_S if limit_s is None else limit_s)
    try:
        return looking.post(
            "/v1/trace/sightings",
            {
                "source": way["source"]["ip"],
                "target": way["target"]["ip"],
                "network": way["network"],
                "mark": mark.hex(),
            },
        )
    except OverlayError:  # an agent of before: the attempt is worth making without it
        return {"node": way["target"]["node"], "state": "silent", "sightings": []}


def _connect(descriptor: int | None, source: str, target: str, port: int) -> _Done:
    """Open a TCP connection and close it; raises OSError."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    inside = contextlib.nullcontext() if descriptor is None else netns.inside(descriptor)
    with inside:
        opened = socket.socket(family, socket.SOCK_STREAM)
    with opened:
        opened.settimeout(WAIT_S)
        opened.bind((source, 0))
        started = time.monotonic()
        try:
            opened.connect((target, port))
        except TimeoutError:
            return _Done(f"no answer within {WAIT_S:g} s")
        except OSError as error:
            return _Done(error.strerror or str(error))
        return _Done("", time.monotonic() - started)
