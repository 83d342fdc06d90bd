"""Send one real packet along a traced way, and see how far it gets on this host.

Owns: the attempt and its sentence. An echo request carries a mark of 8 random bytes, by which it
and its answer are seen as they pass the container's and this host's interfaces; a TCP connection
is only opened. Does not: see anything on other hosts.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import NamedTuple

from overlay.cli.packets import namespace
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import NotFoundError, OverlayError
from overlay.kernel import netns
from overlay.kernel.icmp_echo import IcmpEcho
from overlay.kernel.packet_tap import PacketTap, Sighting, mark_offset
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
                else _echo(descriptor, way)
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


def _echo(descriptor: int | None, way: JsonObject) -> _Done:
    """Send a marked echo request; raises OSError."""
    source, target = parse_ip(way["source"]["ip"]), parse_ip(way["target"]["ip"])
    vtep = way["way"]["peer_vtep"]
    with contextlib.ExitStack() as undo:
        echo = undo.enter_context(contextlib.closing(IcmpEcho(descriptor, source, target, _SIZE)))
        inside = undo.enter_context(PacketTap(descriptor, echo.token, mark_offset(target, None)))
        offset = mark_offset(target, parse_ip(vtep) if vtep else None)
        host = undo.enter_context(PacketTap(None, echo.token, offset)) if vtep else None
        refusal = echo.send(1)
        if refusal:
            return _Done(refusal)
        answer = echo.wait(time.monotonic() + WAIT_S)
        on_host = [] if host is None else host.sightings()
        seen = last_seen(way, inside.sightings(), on_host)
    if answer is None:
        return _Done(f"no answer within {WAIT_S:g} s", seen=seen)
    return _Done(answer.problem, answer.seconds, seen if answer.problem else "")


def last_seen(way: JsonObject, inside: list[Sighting], on_host: list[Sighting]) -> str:
    """Return where a request or its answer was seen last on this host; empty if nowhere."""
    name, node = way["source"]["name"], way["source"]["node"]
    target = way["target"]
    back = next((each for each in on_host if not each.is_outgoing), None)
    if back is not None:
        return f"its answer, as it came to {node} by {back.ifname}: then it was lost on {node}"
    out = next((each for each in on_host if each.is_outgoing), None)
    if out is not None:
        vtep = way["way"]["peer_vtep"]
        return (
            f"as it left {node} by {out.ifname} for {vtep}: it, or its answer, was lost between "
            f"the hosts or on {target['node']}"
        )
    left = next((each for each in inside if each.is_outgoing), None)
    if left is None:
        return ""
    lost = "it, or its answer," if target["node"] == node else "then it"
    return f"as it left {name} by {left.ifname}: {lost} was lost on {node}"


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
