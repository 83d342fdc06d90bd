"""Report members whose software does not enforce policies.

A policy cannot be written while one is there, but one may come back, or join, later.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.declared.software import older_members
from overlay.agent.process.controller import Fault
from overlay.agent.records.directory import Directory
from overlay.agent.records.policy_catalog import PolicyCatalog
from overlay.core.node import Node
from overlay.core.policy.policy import POLICY_SOFTWARE
from overlay.model import has_default_deny


def old_member_faults(node: Node, directory: Directory, policies: PolicyCatalog) -> Iterator[Fault]:
    """Yield the live members that let everything pass, where something may not."""
    if not policies.all() and not any(map(has_default_deny, directory.networks())):
        return
    for member in older_members(node, POLICY_SOFTWARE):
        yield Fault(
            f"{member} does not enforce policies",
            "Its containers receive and open what policies deny; the other end's host still "
            "denies it. Upgrade it: its version is older than 0.3.0",
            "error",
        )
