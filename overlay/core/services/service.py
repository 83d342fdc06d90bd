"""A service: what it is called, where it answers, and which containers are its backends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from overlay.core.services.values import IngressMode, IpNetwork, ServiceProtocol
from overlay.model import Ip, Vni

"""The kind of declared object (`core.declared`) that services are."""
EXEC_CHECK_SOFTWARE: Final = (0, 4, 0)
"""The first version that knows checks by an installed program."""
_PATH: Final = re.compile(r"/[!-~]*", re.ASCII)
_PROGRAM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
CheckKind: TypeAlias = Literal["tcp", "http", "exec"]


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of the virtual address, and the backends' own port behind it."""

    port: int
    target: int
    protocol: ServiceProtocol = "tcp"
    name: str = ""  # for SRV records: `_NAME._tcp.SERVICE`


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """The check of a backend by its host, and how often; times are in seconds."""

    kind: CheckKind
    argument: str  # the path of http, the name of an installed program; empty for tcp
    period_s: float
    timeout_s: float
    threshold: int  # results in a row that change the state

    @property
    def is_possible(self) -> bool:
        """Whether a host can try it: it sends the path as it is, and looks up the name."""
        if self.kind == "http":
            return _PATH.fullmatch(self.argument) is not None
        if self.kind == "exec":
            return _PROGRAM.fullmatch(self.argument) is not None
        return (self.kind, self.argument) == ("tcp", "")


@dataclass(frozen=True, slots=True)
class ServiceIngress:
    """A port of the hosts that leads to a port of the service."""

    port: int
    service_port: int
    protocol: ServiceProtocol = "tcp"
    mode: IngressMode = "ingress"
    sources: tuple[IpNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the cluster, as its record in force has it.

    Backends are the containers on its network that have all labels of the selector, or one of the
    names in `backends`; without both, those that have its name as an alias.
    """

    name: str
    vni: Vni
    ips: tuple[Ip, ...]  # virtual addresses, at most one per family; none with `dns_rr`
    ports: tuple[ServicePort, ...]
    selector: tuple[tuple[str, str], ...] = ()
    backends: tuple[str, ...] = ()
    weights: tuple[tuple[str, int], ...] = ()  # of containers by name; others have 1
    drained: tuple[str, ...] = ()  # containers that get no new connections
    affinity: bool = False
    local_first: bool = False
    dns_rr: bool = False
    check: HealthCheck | None = None
    ingress: tuple[ServiceIngress, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
