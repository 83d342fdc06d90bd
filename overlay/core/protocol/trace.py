"""The question that members ask for a trace: each explains its own half of a way."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from overlay.model import Ip


class Outcome(enum.IntEnum):
    """The effect of a step on a frame; numbers are append-only."""

    OK = 0
    WARN = 1  # it passes, but in a worse way, or only some do
    DROP = 2
    UNKNOWN = 3


class Phase(enum.IntEnum):
    """Whether a step concerns frames that the answering host sends, or those that it receives."""

    SEND = 0
    RECEIVE = 1


class Step(enum.IntEnum):
    """The steps of a way; numbers are append-only."""

    RECORD = 1  # each host knows both endpoints
    INTERFACE = 2  # the container's: state, address
    ROUTE = 3  # in the container
    CACHE = 4  # the container's own neighbor entry
    PORT = 5  # the sandbox's end of the interface
    SECURITY = 6  # port security
    SANDBOX = 7  # bridge and VTEP
    FAST_PATH = 8
    NEIGHBOR = 9  # the row from which ARP is answered
    FDB = 10  # the row that names the VTEP
    PATH = 11  # between the hosts
    SIZE = 12
    FILTER = 13  # of the VXLAN port
    LISTENER = 14  # a program in the container
    AGENT = 15  # of the other host
    POLICY = 16  # which connections are allowed


class Finding(NamedTuple):
    """The effect of one step in a sentence, with what to do about it.

    `step` is a number: another version may know further ones.
    """

    phase: Phase
    step: int
    outcome: Outcome
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """Asks for the findings about the way between an endpoint of the receiver and another."""

    request_id: bytes  # 8 bytes
    vni: int
    endpoint_id: bytes  # 8 bytes: the receiver's
    peer_id: bytes  # 8 bytes: the endpoint at the other end
    peer_ip: Ip
    protocol: int  # of IP: 0 for any
    port: int  # on which a program should listen in the receiver's container; 0: none
    opened_port: int | None = None  # to which the receiver's opens a connection; None: it does not


@dataclass(frozen=True, slots=True)
class TraceAnswer:
    """One part of the answer to a TraceRequest."""

    request_id: bytes
    part: int
    part_count: int
    findings: tuple[Finding, ...]
