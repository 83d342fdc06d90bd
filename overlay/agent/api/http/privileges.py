"""Refuse to the group requests that amount to root of this host's network.

Root may send them, and so may the group where the configuration trusts it
(`ApiCaller.require_trust`).

Owns: the list of these requests, and how each is recognized.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from overlay import limits
from overlay.agent.api.http.caller import ApiCaller
from overlay.core.dataplane.controls.ethertypes import parse_ethertypes
from overlay.target_kinds import is_path

# Namespaces under these paths are those of processes, which /proc lists, and those with a name.
_NAMESPACE_PATH: Final = re.compile(
    r"/proc/\d+(/task/\d+)?/ns/net|(/var)?/run/netns/(?!\.{1,2}$)[^/]+"
)
# Ranges that nothing outside has: RFC 1918, 6598, 4193; and those for tests and documents.
_PRIVATE: Final = [
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15",
        "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "fc00::/7", "2001:db8::/32",
    )
]  # fmt: skip


def require_port_security(caller: ApiCaller, *, enabled: bool) -> None:
    """Raise ForbiddenError if the caller may not turn port security off."""
    if not enabled:
        caller.require_trust(
            "turn port security off",
            "such a container can take the addresses of every other one on its network",
        )


def require_isolation(caller: ApiCaller, *, enabled: bool) -> None:
    """Raise ForbiddenError if the caller may not except a container from isolation."""
    if not enabled:
        caller.require_trust(
            "except a container from the isolation of its network's ports",
            "such a container reaches every isolated one",
        )


def require_own_addresses(caller: ApiCaller, allowed: Iterable[str]) -> None:
    """Raise ForbiddenError if the caller may not let a container use more than its own address.

    `allowed` are addresses and MACs, as text.
    """
    for text in allowed:
        caller.require_trust(
            f"allow a container {text} beside its own address",
            "another device of the network may have it, whose traffic the container would get",
        )


def require_client(caller: ApiCaller, *, dhcp_server: bool, router: bool) -> None:
    """Raise ForbiddenError if the caller may not let a container serve addresses or routes."""
    for is_asked, what in ((dhcp_server, "answer DHCP"), (router, "send router advertisements")):
        if is_asked:
            caller.require_trust(
                f"let a container {what}",
                "it can become the router or resolver of every other one on its network",
            )


def require_ethertypes(caller: ApiCaller, text: str | None) -> None:
    """Raise ForbiddenError if the caller may not let containers send what is not IP."""
    if text and parse_ethertypes(text, "allow_non_ip"):
        caller.require_trust(
            "let a container send frames that are neither IP nor ARP",
            "no policy and no rule of the network looks into such frames",
        )


def require_target(caller: ApiCaller, target: str) -> None:
    """Raise ForbiddenError for a path that the caller may not have the agent open.

    Nothing is looked up before, so that the answer does not tell whether anything is there.
    """
    if is_path(target) and not _NAMESPACE_PATH.fullmatch(target):
        caller.require_trust(
            "attach a path other than /proc/PID/ns/net and /run/netns/NAME",
            "the agent, as root, would find out for the caller what is there",
        )


def require_ports(caller: ApiCaller, host_ports: Iterable[int]) -> None:
    """Raise ForbiddenError if the caller may not publish some ports of this host."""
    low = [port for port in host_ports if port < limits.UNPRIVILEGED_PORT_MIN]
    if low:
        caller.require_trust(
            f"publish a port below {limits.UNPRIVILEGED_PORT_MIN}",
            f"a container would answer in place of this host's services on port {min(low)}",
        )


def require_subnets(caller: ApiCaller, subnets: Iterable[str]) -> None:
    """Raise ForbiddenError for subnets of public addresses, if the caller may not take them.

    A host on the network sends what it has for these addresses to the network's containers.
    Invalid texts are left to the check that words their errors.
    """
    for text in subnets:
        try:
            subnet = ipaddress.ip_network(text)
        except ValueError:
            continue
        if not any(
            subnet.version == each.version and subnet.subnet_of(each)  # type: ignore[arg-type]
            for each in _PRIVATE
        ):
            caller.require_trust(
                f"use {text}, which is not private, as a network's subnet",
                "this host would send its own traffic for these addresses to containers",
            )


def require_parent(caller: ApiCaller, parent: str, *, is_underlay: bool) -> None:
    """Raise ForbiddenError if the caller may not put a container on the underlay's segment."""
    if is_underlay:
        caller.require_trust(
            f"connect containers to {parent}, the interface of the underlay",
            "from there they can send, as any member of the cluster, into every network",
        )


def require_names(caller: ApiCaller, *, any_name: bool) -> None:
    """Raise ForbiddenError if the caller may not let a network's DNS answer any name."""
    if any_name:
        caller.require_trust(
            "create a network that answers names outside the cluster's domain",
            "its containers would take any host of the Internet from the others",
        )
