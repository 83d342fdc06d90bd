"""The fuzzing targets, with some hundred inputs in each test run.

`make fuzz` runs millions.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import targets

VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs/vectors/wire.json").read_text(encoding="utf-8")
)
PAYLOADS = [bytes.fromhex(each) for each in VECTORS["messages"].values()]
DATAGRAMS = [
    *(bytes.fromhex(each) for each in VECTORS["session"]["datagrams"].values()),
    *(bytes.fromhex(each) for each in VECTORS["admission"].values()),
    *(bytes.fromhex(VECTORS["session"][name]) for name in ("statement", "frame", "join")),
    bytes.fromhex(VECTORS["key"]),
]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """Return valid bytes with some changed, cut or doubled; or random bytes."""
    data = bytearray(draw(st.sampled_from([*PAYLOADS, *DATAGRAMS]) | st.binary(max_size=1300)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data[:1300])


@pytest.mark.parametrize("name", targets.NAMES)
def test_any_input_is_accepted_or_dropped_with_a_reason(name: str) -> None:
    """No input raises an exception."""
    target = targets.make(name)

    @settings(max_examples=400, deadline=None)
    @given(spoiled())
    def run(data: bytes) -> None:
        assert isinstance(target(data), str)

    run()


def test_the_member_target_accepts_valid_messages() -> None:
    """The golden vectors are valid messages: none of them is malformed."""
    target = targets.make("member")
    reasons = {target(payload) for payload in PAYLOADS}
    assert not reasons & {"malformed", "unknown-message"}
    assert "" in reasons


def test_memory_is_bounded_under_a_malicious_member() -> None:
    """20,000 invalid messages leave no queue above its bound."""
    intake = targets.Intake()
    rng = random.Random(5)
    for number in range(20_000):
        data = bytearray(PAYLOADS[number % len(PAYLOADS)])
        data[rng.randrange(len(data))] = rng.randrange(256)
        intake.from_a_member(bytes(data))
    assert len(intake.node.store.cards) < 10
    assert len(intake.node.membership.members()) < 10
