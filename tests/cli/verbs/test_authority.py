"""Commands promote and authority."""

from __future__ import annotations

import io
import json
import os
import pty
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.cli.passphrase_input import read_passphrase
from overlay.errors import UsageError

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

EXPORTED = {"schema": "overlayd.authority-export/v1", "cluster": "7f3a9c21", "sealed": "{sealed}"}


@pytest.mark.parametrize(("promoted", "told"), [(True, "now holds"), (False, "already held")])
def test_promote_prints_its_result(
    overlayd: Run, agent: FakeAgent, promoted: bool, told: str
) -> None:
    """Promoting a holder again is not an error."""
    done = {"schema": "overlayd.promote/v1", "node": "vm2", "promoted": promoted}
    agent.answer("POST /v1/promote", done)
    outcome = overlayd("promote", "vm2")

    assert outcome.code == 0
    assert f"vm2 {told}" in outcome.err


def test_the_holders_are_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """Each with its state, this host marked."""
    answer = {
        "schema": "overlayd.authority-ls/v1",
        "wanted": 3,
        "holders": [
            {"id": "n-1", "name": "vm1", "state": "alive", "self": True},
            {"id": "n-2", "name": "vm2", "state": "dead", "self": False},
        ],
    }
    agent.answer("GET /v1/authority", answer)
    outcome = overlayd("authority", "ls")

    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert lines == ["NODE ID STATE", "vm1 * n-1 alive", "vm2 n-2 dead"]
    assert "3 members hold it" in outcome.err
    agent.answer("GET /v1/authority", answer | {"holders": []})
    assert "no member holds the authority any longer" in overlayd("authority", "ls").err


def test_an_export_is_a_new_file_for_root_alone(
    overlayd: Run, agent: FakeAgent, tmp_path: Path
) -> None:
    """Mode 0600 whatever the umask; the passphrase comes from a file, without its line end."""
    agent.answer("POST /v1/authority/export", EXPORTED)
    secret, path = tmp_path / "secret", tmp_path / "authority.json"
    secret.write_text("a long passphrase\n")
    secret.chmod(0o600)
    before = os.umask(0)
    try:
        outcome = overlayd("authority", "export", str(path), "--passphrase-file", str(secret))
    finally:
        os.umask(before)

    assert outcome.code == 0
    assert agent.asked[-1].body == {"passphrase": "a long passphrase"}
    assert path.read_text() == "{sealed}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "a long passphrase" not in outcome.out + outcome.err


@pytest.mark.parametrize("kind", ["file", "link"])
def test_an_export_never_overwrites(
    overlayd: Run, agent: FakeAgent, tmp_path: Path, kind: str
) -> None:
    """Nor does it follow a link; the agent is not asked."""
    agent.answer("POST /v1/authority/export", EXPORTED)
    path, other = tmp_path / "authority.json", tmp_path / "other"
    if kind == "file":
        path.write_text("the only copy")
    else:
        path.symlink_to(other)
    outcome = overlayd("authority", "export", str(path), "--passphrase-file", "/dev/null")

    assert outcome.code == 6
    assert "exists already" in outcome.err
    assert not agent.asked
    assert not other.exists()


def test_a_refused_export_leaves_no_file(overlayd: Run, agent: FakeAgent, tmp_path: Path) -> None:
    """A host without the authority writes nothing."""
    agent.fail("POST /v1/authority/export", "conflict", 409)
    (tmp_path / "secret").write_text("a long passphrase")
    path = tmp_path / "authority.json"
    words = ("authority", "export", str(path), "--passphrase-file", str(tmp_path / "secret"))

    assert overlayd(*words).code == 6
    assert not path.exists()
    agent.answer("POST /v1/authority/export", EXPORTED)
    missing = overlayd(*words[:2], str(tmp_path / "none" / "a"), *words[3:])
    assert missing.code == 1
    assert "cannot write" in missing.err


def test_an_import_sends_file_and_passphrase(
    overlayd: Run, agent: FakeAgent, tmp_path: Path
) -> None:
    """A host that held the authority already is not an error."""
    path, secret = tmp_path / "authority.json", tmp_path / "secret"
    path.write_text("{\n sealed}\n")
    secret.write_text("a long passphrase\n")
    words = ("authority", "import", str(path), "--passphrase-file", str(secret))
    done = {"schema": "overlayd.authority-import/v1", "cluster": "7f3a9c21", "imported": True}
    agent.answer("POST /v1/authority/import", done)

    assert "now holds" in overlayd(*words).err
    assert agent.asked[-1].body == {"sealed": "{ sealed}", "passphrase": "a long passphrase"}
    agent.answer("POST /v1/authority/import", done | {"imported": False})
    assert "already held" in overlayd(*words).err
    assert json.loads(overlayd(*words, "--json").out)["imported"] is False


@pytest.mark.parametrize(("content", "code"), [(None, 5), ("", 2), ("x" * 5000, 2)])
def test_a_wrong_file_is_refused_before_the_prompt(
    overlayd: Run, agent: FakeAgent, tmp_path: Path, content: str | None, code: int
) -> None:
    """A missing, an empty and a long one; the agent is not asked."""
    path = tmp_path / "authority.json"
    if content is not None:
        path.write_text(content)

    assert overlayd("authority", "import", str(path)).code == code
    assert not agent.asked


def test_a_passphrase_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line; without a terminal and without an option there is none."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("a b  \n"))
    assert read_passphrase("-", is_new=True) == "a b  "
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    with pytest.raises(UsageError, match="several lines"):
        read_passphrase("-", is_new=True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(UsageError, match="empty"):
        read_passphrase("-", is_new=True)
    with pytest.raises(UsageError, match="no passphrase was given") as caught:
        read_passphrase(None, is_new=True)
    assert "--passphrase-file" in caught.value.hint


@pytest.mark.parametrize(
    ("typed", "is_new", "expected"),
    [
        (["secret words"], False, "secret words"),
        (["secret words", "secret words"], True, "secret words"),
        (["secret words", "secret word"], True, None),
    ],
)
def test_a_new_passphrase_is_asked_for_twice(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], is_new: bool, expected: str | None
) -> None:
    """On a terminal; a typing error is found at once."""
    answers = iter(typed)
    master, terminal = pty.openpty()
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(answers))
    with os.fdopen(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        if expected is None:
            with pytest.raises(UsageError, match="differ"):
                read_passphrase(None, is_new=is_new)
        else:
            assert read_passphrase(None, is_new=is_new) == expected
    os.close(master)

    assert next(answers, None) is None
