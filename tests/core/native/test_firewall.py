"""The way of packets through a firewall's chains: what may judge them is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.native.firewall import VxlanTraffic, judging_rule
from overlay.core.netcheck.packet_filter import Action, Chain, Rule
from overlay.model import parse_ip

HOOKS = ("prerouting", "input")
DROP = Rule(matches=True, action=Action.DROP, where="policy")


def rule(matches: bool | None, action: Action, to: str = "") -> Rule:
    """Return a rule, named by its action."""
    return Rule(matches, action, where=action.name.lower(), to=to)


def judging(*rules: Rule, policy: Rule | None = None, **chains: tuple[Rule, ...]) -> str:
    """Return what judges in a chain of the hook `input`, from which others are entered."""
    base = Chain("input", rules=list(rules))
    if policy is not None:
        base.policy = policy
    others = {name: Chain(rules=list(inner)) for name, inner in chains.items()}
    return judging_rule({"base": base, **others}, HOOKS)


ACCEPT, RETURN, JUMP, GOTO = Action.ACCEPT, Action.RETURN, Action.JUMP, Action.GOTO
CASES = {
    "nothing": (judging(), ""),
    "policy": (judging(policy=DROP), "policy"),
    "accepted before": (judging(rule(True, ACCEPT), policy=DROP), ""),
    "perhaps accepted": (judging(rule(None, ACCEPT), policy=DROP), "policy"),
    "others accepted": (judging(rule(False, ACCEPT), policy=DROP), "policy"),
    "perhaps dropped": (judging(rule(None, Action.DROP), rule(True, ACCEPT)), "drop"),
    "others dropped": (judging(rule(False, Action.DROP)), ""),
    "accepted first": (judging(rule(True, ACCEPT), rule(True, Action.DROP)), ""),
    "accepted in a jump": (
        judging(rule(True, JUMP, "c"), policy=DROP, c=(rule(True, ACCEPT),)),
        "",
    ),
    "perhaps back": (
        judging(rule(True, JUMP, "c"), policy=DROP, c=(rule(None, RETURN), rule(True, ACCEPT))),
        "policy",
    ),
    "perhaps there": (
        judging(rule(None, JUMP, "c"), policy=DROP, c=(rule(True, ACCEPT),)),
        "policy",
    ),
    "dropped in a jump": (judging(rule(None, JUMP, "c"), c=(rule(True, Action.DROP),)), "drop"),
    "behind a goto": (
        judging(rule(True, GOTO, "c"), rule(True, Action.DROP), c=(rule(False, ACCEPT),)),
        "",
    ),
    "policy behind a goto": (
        judging(rule(True, GOTO, "c"), rule(True, ACCEPT), policy=DROP, c=()),
        "policy",
    ),
    "returned to the policy": (
        judging(rule(True, RETURN), rule(True, ACCEPT), policy=DROP),
        "policy",
    ),
    "target that logs": (judging(rule(True, JUMP, "filter LOG")), ""),
    "target of another kind": (judging(rule(True, JUMP, "filter DSCP")), "jump"),
    "jumps in a circle": (judging(rule(True, JUMP, "c"), c=(rule(True, JUMP, "c"),)), "jump"),
}


@pytest.mark.parametrize(("found", "wanted"), CASES.values(), ids=CASES)
def test_what_may_judge_is_named(found: str, wanted: str) -> None:
    """Only what accepts all packets for certain ends their way."""
    assert found == wanted


def test_chains_of_other_hooks_do_not_count() -> None:
    """And of those that do, each is passed: one that accepts does not speak for the next."""
    dropping = Chain("forward", policy=DROP)
    assert judging_rule({"a": dropping}, HOOKS) == ""
    accepting = Chain("prerouting", rules=[rule(True, ACCEPT)])
    assert judging_rule({"a": accepting, "b": Chain("input", policy=DROP)}, HOOKS) == "policy"


def test_what_leaves_is_seen_from_the_other_side() -> None:
    """The members are where it goes, and the hooks are those of what this host sends."""
    own, members = parse_ip("10.0.0.1"), frozenset({parse_ip("10.0.0.2")})
    sent = VxlanTraffic(False, own, members, frozenset({(2, "eth1")}), 4789)
    assert (sent.sources, sent.targets) == (frozenset({own}), members)
    assert sent.hooks == ("output", "postrouting", "egress")


SIMPLE = st.sampled_from([ACCEPT, Action.DROP, RETURN, Action.NOTHING])
RULES = st.lists(st.tuples(st.sampled_from([True, False, None]), SIMPLE), max_size=5)


def _passes(rules: list[tuple[bool | None, Action]], choices: list[bool]) -> bool:
    """Return whether a packet passes that matches what is not known by `choices`."""
    for (matches, action), choice in zip(rules, choices, strict=True):
        if choice if matches is None else matches:
            if action in (ACCEPT, Action.DROP):
                return action is ACCEPT
            if action is RETURN:
                break
    return False  # the policy


@given(RULES)
def test_unknown_matches_are_tried_both_ways(rules: list[tuple[bool | None, Action]]) -> None:
    """Nothing judges exactly if the packet passes whatever the unknown matches say."""
    found = judging(*(rule(*each) for each in rules), policy=DROP)
    choices = [
        [bool(bits >> at & 1) for at in range(len(rules))] for bits in range(2 ** len(rules))
    ]
    assert (found == "") == all(_passes(rules, each) for each in choices)
