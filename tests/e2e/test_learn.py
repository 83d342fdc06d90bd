"""The page that builds an overlay by hand, typed from top to bottom."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.netns

PAGE = Path(__file__).parent.parent.parent / "docs/learn/overlay-by-hand.md"
APART = ("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c")
BEGIN = 'mount -t tmpfs none /run && mkdir /run/netns && exec bash -eux -c "$0"'


def test_the_overlay_by_hand_works() -> None:
    """Each command exits with 0, and each ping is answered."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    typed = "".join(blocks)
    done = subprocess.run([*APART, BEGIN, typed], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0% packet loss") == typed.count("ping -c 1 ") >= 7


def test_the_exercises_fail_where_they_should() -> None:
    """Without a bridge, the ends of two cables are not connected."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    typed = "".join(blocks[:2]) + "ip netns exec c1 ping -c 1 -W 1 10.32.0.12\n"
    done = subprocess.run([*APART, BEGIN, typed], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "100% packet loss" in done.stdout
