"""Permissions of `apply`: a file gives a caller no right that single commands refuse.

Owns: the acts of a plan that only trusted callers may have done. Does not: know acts whose check
needs the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.apply.host.items import PLUG, PUBLISH, port_of
from overlay.agent.apply.network_items import spec_of
from overlay.agent.apply.service_items import service_of
from overlay.core.apply.items import NETWORK, SERVICE
from overlay.core.apply.plan import PlannedStep


def require_allowed(caller: ApiCaller, steps: Iterable[PlannedStep]) -> None:
    """Raise ForbiddenError for a step that the caller could not do by a single command either."""
    for step in steps:
        if step.item.kind == PUBLISH:
            privileges.require_ports(caller, [port_of(step.item).host_port])
        elif step.item.kind == PLUG:
            caller.require_trust(
                f"declare {step.item.title}", "a host would lose what it has on the interface"
            )
        elif step.action == "remove":
            continue
        elif step.item.kind == SERVICE and _sets(step, "publish"):
            ports = (each.port for each in service_of(step.item).ingress)
            privileges.require_ports(caller, ports)
        elif step.item.kind == NETWORK:
            _require_network(caller, step)


def _require_network(caller: ApiCaller, step: PlannedStep) -> None:
    settings = step.item.settings
    if _sets(step, "port_security"):
        privileges.require_port_security(caller, enabled=bool(settings["port_security"]))
    if _sets(step, "any_name"):
        privileges.require_names(caller, any_name=bool(settings["any_name"]))
    if _sets(step, "allow_non_ip"):
        privileges.require_ethertypes(caller, str(settings["allow_non_ip"] or ""))
    if step.action == "create":
        subnets = (each.subnet for each in spec_of(step.item).subnets)
        privileges.require_subnets(caller, subnets)


def _sets(step: PlannedStep, setting: str) -> bool:
    return step.action == "create" or any(each.setting == setting for each in step.changes)
