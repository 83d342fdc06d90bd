"""What the API shows of the members: how each is, and how much of its logs is here.

Owns: the answer to GET /v1/members as docs/API.md has it. Changes nothing.
"""

from __future__ import annotations

from overlay.agent import answers
from overlay.agent.answers import STATES
from overlay.agent.running import Running
from overlay.core.member import Member
from overlay.core.records import CLUSTER_SCOPE, Scope
from overlay.model import Card, NodeId, ip_text, node_text


def members(running: Running) -> list[answers.Member]:
    """Show all members, this node first, then by name."""
    rows = []
    for item in running.member.node.membership.members():
        card = running.directory.card(item.node_id)
        if item.node_id != running.member.node_id and card is not None:
            rows.append(_other(running, item, card))
    return [_self(running), *sorted(rows, key=lambda row: (row["name"], row["id"]))]


def _self(running: Running) -> answers.Member:
    return {
        **_identity(running, running.member.card),
        "state": "alive",
        "since_s": round(running.member.pump.now() - running.member.started, 1),
        "incarnation": running.member.node.membership.incarnation,
        "rtt_ms": None,
        "logs": _logs(running, running.member.node_id),
        "self": True,
    }


def _other(running: Running, item: Member, card: Card) -> answers.Member:
    now = running.member.pump.now()
    return {
        **_identity(running, card),
        "state": STATES[item.state],
        "since_s": round(max(0.0, now - item.since), 1),
        "incarnation": item.incarnation,
        "rtt_ms": None if item.rtt_s is None else round(item.rtt_s * 1000, 3),
        "logs": _logs(running, item.node_id),
        "self": False,
    }


def _identity(running: Running, card: Card) -> answers.MemberIdentity:
    certificate = card.certificate
    assert certificate is not None, "a member is certified"
    return {
        "id": node_text(card.node_id),
        "name": card.name,
        "address": ip_text(card.address),
        "version": card.software,
        "authority": running.admissions.is_holder(card.node_id),
        "certificate_expires": certificate.not_after_s,
    }


def _logs(running: Running, origin: NodeId) -> answers.Logs:
    """Show each log of a node that is held here, against the newest version told of anywhere."""
    node = running.member.node
    shown: list[answers.LogVersion] = []
    behind = 0
    for scope in node.store.common_scopes(origin):
        held, newest = node.store.version(origin, scope), node.repair.origin_version(origin, scope)
        behind += max(newest, held) - held
        if newest:
            shown.append({"scope": _scope_name(running, scope), "held": held, "origin": newest})
    equal_at = node.repair.equal_at.get(origin)
    return {
        "behind": behind,
        "equal_s": None if equal_at is None else round(running.member.pump.now() - equal_at, 1),
        "versions": shown,
    }


def _scope_name(running: Running, scope: Scope) -> str:
    if scope == CLUSTER_SCOPE:
        return "cluster"
    network = running.directory.network_by_vni(scope)
    return f"vni {scope}" if network is None else network.name
