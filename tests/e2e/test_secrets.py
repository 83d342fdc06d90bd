"""Secrets of running agents, searched for wherever others might see them."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import signal
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.lab import host_process, lab
from overlay.lab.driver import (
    LOG,
    AgentDriver,
    ApiRefusedError,
    connect,
    end_all,
    join_all,
    wait_until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
STATE = "/var/lib/overlayd"
KINDS = ("identity", "cluster", "authority")
READS = (
    "/v1/status", "/v1/members", "/v1/networks", "/v1/networks/blue", "/v1/ipam", "/v1/endpoints",
    "/v1/containers", "/v1/verify", "/v1/events", "/v1/tokens",
)  # fmt: skip
HEX_SECRET_LENGTH = 64  # 32 bytes
KEY_SPELLED = re.compile(r"[0-9A-Fa-f]{64}|(?:\\x[0-9a-f]{2}){8}")  # whichever key it is


class Told:
    """Two members, their secrets in all spellings, and all of their output."""

    def __init__(self, drivers: list[AgentDriver], folder: Path) -> None:
        self._folder = folder
        self.drivers = drivers
        self.tokens: list[str] = []
        self.passphrases: list[str] = []

    def secrets(self) -> set[str]:
        """Return the secrets on both disks and the tokens, as text and as printed bytes."""
        found = {token.partition(".")[2] for token in self.tokens} | set(self.passphrases)
        for driver in self.drivers:
            root = Path(f"/proc/{driver.host.pid}/root{STATE}")
            public = {driver.get("/v1/status")["cluster"]["id"]}
            for path in root.glob("*.db*"):
                assert path.stat().st_mode & 0o077 == 0, f"{path} is for root alone"
                shutil.copy(path, self._folder)  # the agent keeps its own to itself
            connection = sqlite3.connect(self._folder / "state.db")
            rows = connection.execute("SELECT kind, key, json FROM value").fetchall()
            connection.close()
            for kind, _, text in rows:
                if kind in KINDS:
                    found |= set(hex_texts(json.loads(text))) - public
        return found

    def public(self) -> str:
        """Return all that others may see: logs, answers, arguments and environments."""
        parts = []
        for driver in self.drivers:
            parts.append(driver.run("cat", LOG))
            parts += [json.dumps(driver.get(path)) for path in READS]
            parts.append(driver.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"))
        return " ".join(parts)

    def report(self, driver: AgentDriver) -> dict[str, bytes]:
        """Return the files of a report that a host writes for a bug report."""
        path = Path(f"/proc/{driver.host.pid}/root/run/report.tar.gz")
        path.unlink(missing_ok=True)
        driver.run("overlayd", "report", "-o", "/run/report.tar.gz")
        assert path.stat().st_mode & 0o777 == 0o600
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
            files = {each.name: archive.extractfile(each) for each in archive.getmembers()}
            return {name.partition("/")[2]: file.read() for name, file in files.items() if file}


def spellings(secret: str) -> set[bytes]:
    """Return a secret as text, and one that is printed in hex as bytes and in base64 too."""
    found = {secret.encode()}
    if len(secret) == HEX_SECRET_LENGTH and re.fullmatch("[0-9a-f]*", secret):
        raw = bytes.fromhex(secret)
        spelled = (base64.b64encode(raw), base64.urlsafe_b64encode(raw), repr(raw).encode())
        found |= {raw, secret.upper().encode(), *(text.rstrip(b"=") for text in spelled)}
    return found


def hex_texts(value: object) -> Iterator[str]:
    """Yield the keys in a stored value; the content of the anchor is public."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in ("anchor", "cluster_id"):
                yield from hex_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from hex_texts(inner)
    elif isinstance(value, str) and len(value) >= HEX_SECRET_LENGTH:
        for at in range(0, len(value) - HEX_SECRET_LENGTH + 1, HEX_SECRET_LENGTH):
            yield value[at : at + HEX_SECRET_LENGTH]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Return two members with debug logs, after every operation that handles secrets."""
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers: list[AgentDriver] = []
    try:
        drivers = connect(lab.make(2))
        for driver in drivers:
            driver.run("mkdir", "-p", "/etc/overlayd")
            driver.run("sh", "-c", "echo 'log_level = \"debug\"' >/etc/overlayd/overlayd.toml")
        join_all(drivers)
        made = Told(drivers, tmp_path_factory.mktemp("state"))
        one, two = drivers
        one.post("/v1/networks", name="blue", subnets=[{"subnet": "10.32.0.0/16"}])
        made.tokens += [one.get("/v1/token")["token"], one.post("/v1/tokens", uses=1)["token"]]
        one.post("/v1/promote", node=two.get("/v1/status")["node"]["name"])
        made.passphrases.append("a passphrase that nobody reads")
        sealed = one.post("/v1/authority/export", passphrase=made.passphrases[0])["sealed"]
        two.post("/v1/authority/import", sealed=sealed, passphrase=made.passphrases[0])
        with pytest.raises(ApiRefusedError) as wrong_one:
            two.post("/v1/authority/import", sealed=sealed, passphrase=made.passphrases[0] * 2)
        assert made.passphrases[0] not in str(wrong_one.value)
        spoiled = made.tokens[1][:-4] + "AAAA"
        for wrong in (spoiled, [made.tokens[1]], made.tokens[1] * 100):
            with pytest.raises(ApiRefusedError) as refusal:
                two.call("POST", "/v1/join", {"peers": ["192.168.56.11"], "token": wrong})
            assert made.tokens[1][5:40] not in str(refusal.value)
        yield made
    finally:
        end_all(drivers)


def test_no_secret_is_disclosed(told: Told) -> None:
    """Neither keys nor tokens are in logs, answers, arguments or environments."""
    secrets, public = told.secrets(), told.public()

    assert len(secrets) > 4, "identities, the cluster's secret, the authority, tokens"
    assert [text for text in secrets if text in public] == []
    assert [text for text in secrets if text.upper() in public] == []


def test_a_report_has_no_secret(told: Told) -> None:
    """Its files have what people need, and no key, token, passphrase or state."""
    secrets = {spelled for text in told.secrets() for spelled in spellings(text)}
    for driver in told.drivers:
        files = told.report(driver)
        whole = b"\n".join(files.values())

        assert {"doctor.txt", "status.json", "members.json", "agent.log", "sysctls.txt"} <= set(
            files
        )
        assert b"created cluster" in whole or b"joined cluster" in whole
        assert b"table inet overlayd_" in files["host-nftables.txt"]
        assert b'"name": "blue"' in files["networks.json"]
        assert [spelled for spelled in secrets if spelled in whole] == []
        # Keys of sessions are in memory alone: nothing that could be one is in it.
        assert KEY_SPELLED.findall(whole.decode()) == []
        assert b"SQLite format" not in whole


def test_a_report_removes_what_a_log_discloses(told: Told) -> None:
    """Were a key or a token in the log, a report would not have it."""
    driver = told.drivers[1]
    leaks = sorted(told.secrets() - set(told.passphrases))
    texts = [spelled for text in leaks for spelled in spellings(text) if spelled.isascii()]
    log = Path(f"/proc/{driver.host.pid}/root{LOG}")
    before = log.read_bytes()
    lines = [*texts, *(token.encode() for token in told.tokens)]
    log.write_bytes(before + b"".join(b"disclosed " + text + b"\n" for text in lines))
    try:
        files = told.report(driver)
    finally:
        log.write_bytes(before)

    assert files["agent.log"].count(b"disclosed") == len(lines) > 20
    assert [text for text in lines if text in files["agent.log"]] == []


def test_no_core_dump_has_them(told: Told) -> None:
    """A crashing agent leaves no core dump, though the limit would allow one."""
    driver = told.drivers[1]
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").strip()
    pid = driver.pid()
    driver.run("sh", "-c", "prlimit --core=unlimited --pid $(pgrep -f 'cli.main agent') ; true")
    driver.send_signal(signal.SIGSEGV)
    wait_until(lambda: driver.pid() == 0, "the agent's end")
    driver.wait()
    left = driver.run(
        "sh", "-c", "find / /var/lib/overlayd -xdev -maxdepth 1 -name 'core*' -type f"
    )

    assert pid
    assert pattern != ""
    assert left == ""
    driver.start()
