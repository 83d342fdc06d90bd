"""Peers and ports as they are typed, and what is said of wrong ones."""

from __future__ import annotations

import pytest
from overlay.agent.api.policy import texts
from overlay.errors import UsageError


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("cidr:10.0.0.1/8", "Did you mean cidr:10.0.0.0/8?"),
        ("10.0.0.0/8", "Did you mean cidr:10.0.0.0/8?"),
        ("cidr:10.0.0.0/33", "Such as label=app=web"),
        ("app=web", "Did you mean label=app=web?"),
        ("label:app=web", "Did you mean label=app=web?"),
        ("name:web1", "Did you mean name=web1?"),
        ("network=red", "Did you mean network:red?"),
        ("hosts", "Did you mean host?"),
        ("wrold", "Did you mean world?"),
        ("web", "Such as label=app=web"),
        ("name=a b", "Such as label=app=web"),
        (f"label={'x' * 200}", ""),
    ],
)
def test_a_wrong_peer_says_what_was_meant(text: str, hint: str) -> None:
    """With the option that it was given to."""
    with pytest.raises(UsageError) as caught:
        texts.peers([text], "from")

    assert caught.value.field == "from"
    assert caught.value.what.startswith("from: ")
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("80", "Did you mean 80/tcp?"), ("80-90", "Did you mean 80-90/tcp?"), ("80/tpc", "Such as")],
)
def test_a_wrong_port_says_what_was_meant(text: str, hint: str) -> None:
    """A protocol is part of it."""
    with pytest.raises(UsageError) as caught:
        texts.port_ranges([text])

    assert caught.value.hint.startswith(hint)


def test_the_same_peers_in_another_order_are_the_same() -> None:
    """So a script that lists them otherwise creates no other policy."""
    one = texts.peers(["world", "host", "world"], "from")

    assert one == texts.peers(["host", "world"], "from")
    ports = texts.port_ranges(["80/tcp", "icmp", "80/tcp"])
    assert ports == texts.port_ranges(["icmp", "80/tcp"])
