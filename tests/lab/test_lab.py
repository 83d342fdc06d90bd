"""Finding the hosts of a lab."""

from __future__ import annotations

import pytest
from overlay.errors import NotFoundError
from overlay.lab import host_process, lab
from overlay.lab.host_process import HostProcess


@pytest.mark.parametrize(
    ("running", "hint"),
    [
        (["underlay", "vm1", "vm2"], "Use one of them: overlayd lab exec vm1"),
        ([], "overlayd lab up"),
    ],
)
def test_an_unknown_host_gets_the_hint_that_helps(
    monkeypatch: pytest.MonkeyPatch, running: list[str], hint: str
) -> None:
    """While a lab is up, another `lab up` would be refused."""
    hosts = [HostProcess(name, 1) for name in running]
    monkeypatch.setattr(host_process, "running", lambda: hosts)
    with pytest.raises(NotFoundError, match="no lab host 'vm9'") as caught:
        lab.find("vm9")

    assert caught.value.hint == hint
    assert "underlay" not in caught.value.why
