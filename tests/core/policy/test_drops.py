"""An event when a policy begins to deny, and none for each packet."""

from __future__ import annotations

from overlay import limits
from overlay.core.policy.drops import DropStarts

KEY = (7, "no-mail")


def test_denying_begins_once_until_it_was_quiet() -> None:
    """Each further packet is no news; after a quiet time the next one is."""
    starts = DropStarts()
    quiet = limits.POLICY_QUIET_S

    assert starts.begun({KEY: 0}, 0.0) == []
    assert starts.begun({KEY: 1}, 5.0) == [KEY]
    assert starts.begun({KEY: 9}, 10.0) == []
    assert starts.begun({KEY: 9}, 10.0 + quiet) == []
    assert starts.begun({KEY: 10}, 11.0 + quiet) == [KEY]
    assert starts.begun({KEY: 10}, 12.0 + quiet) == []


def test_a_count_that_begins_anew_counts() -> None:
    """As after a sandbox was made anew; a policy that is gone is forgotten."""
    starts = DropStarts()
    starts.begun({KEY: 5}, 0.0)

    assert starts.begun({KEY: 2}, limits.POLICY_QUIET_S + 1) == [KEY]
    assert starts.begun({}, limits.POLICY_QUIET_S + 2) == []
    assert starts.begun({KEY: 2}, limits.POLICY_QUIET_S + 3) == [KEY]
