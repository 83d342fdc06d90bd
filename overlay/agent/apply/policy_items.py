"""Policies as a plan compares them.

Owns: the text of each setting, and the owner, which is a label. Does not: know valid policies.
"""

from __future__ import annotations

from dataclasses import replace

from overlay.agent.apply.owner_label import owner_of, user_texts, with_owner
from overlay.core.apply.items import POLICY, DeclaredItem
from overlay.core.policy.policy import Policy


def policy_item(policy: Policy, network: str, path: str = "") -> DeclaredItem:
    """Return a policy."""
    return DeclaredItem(
        POLICY,
        (policy.name,),
        {
            "network": network,
            "action": policy.action,
            "from": tuple(map(str, policy.sources)),
            "to": tuple(map(str, policy.destinations)),
            "ports": tuple(map(str, policy.ports)),
            "log": policy.log,
            "labels": user_texts(policy.labels),
        },
        owner_of(policy.labels),
        path,
        policy,
    )


def policy_of(item: DeclaredItem) -> Policy:
    """Return the policy of an item, with the item's owner."""
    policy = item.source
    assert isinstance(policy, Policy), "each item of a policy has it"
    return replace(policy, labels=with_owner(policy.labels, item.owner))
