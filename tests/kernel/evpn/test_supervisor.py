"""FRR's real processes, kept running."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.core.evpn.frr_config import bgpd_config
from overlay.core.evpn.settings import parse_settings
from overlay.errors import ConflictError, OverlayError
from overlay.kernel import netns
from overlay.kernel.evpn import frr, process, supervisor
from overlay.kernel.evpn.sessions import connections
from overlay.kernel.evpn.shadow import Shadow
from overlay.kernel.evpn.supervisor import FrrPlan, Supervisor
from overlay.model import Vni, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns

LOCAL = parse_ip("10.9.0.3")


def owner() -> int:
    """Return FRR's user."""
    return pwd.getpwnam("frr").pw_uid


class Watched:
    """A supervisor in a host's namespace, and its directories."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.host = world.namespace("host")
        self.shadow = Shadow.open(world.claim("shadow"), create=True)
        self.shadow.prepare(LOCAL)
        self.shadow.use_segments(frozenset({Vni(4100)}), LOCAL, 4789)
        self.state_dir, self.run_dir = folder / "state", folder / "run"
        for each in (self.state_dir, self.run_dir):
            each.mkdir()
        settings = parse_settings(65000, ["10.9.0.1"], ["10.9.0.0/16"], "secret")
        self.plan = FrrPlan(self.shadow.name, bgpd_config(settings, LOCAL))
        self.supervisor = Supervisor(self.state_dir / supervisor.SETTINGS_NAME, self.run_dir)

    def reconcile(self) -> list[int]:
        """Run one pass in the host's namespace."""
        with netns.inside(self.world.fd(self.host)):
            return self.supervisor.reconcile()

    def kill(self, pid: int, daemon: str) -> None:
        """Kill a daemon, and wait for its end."""
        os.kill(pid, signal.SIGKILL)
        self.world.wait_until(lambda: frr.process_of(self.shadow.name, daemon) is None, "its end")

    def both(self) -> tuple[int, ...]:
        """Return the processes, after passes until both run."""

        def run() -> bool:
            return len(self.reconcile()) == 2

        self.world.wait_until(run, "both processes")
        found = frr.processes(self.shadow.name)
        assert found is not None
        return found


@pytest.fixture
def watched(world: World, tmp_path: Path) -> Iterator[Watched]:
    """Return a supervisor with a plan; nothing runs yet, and nothing does after."""
    made = Watched(world, tmp_path)
    supervisor.write_plan(made.run_dir, made.plan)
    try:
        yield made
    finally:
        supervisor.delete_plan(made.run_dir)
        made.reconcile()
        made.shadow.close()


def test_both_run_where_they_belong(watched: Watched) -> None:
    """Zebra in the shadow, bgpd on the host, as FRR's user, and neither listens."""
    zebra, bgpd = watched.both()

    wanted = [netns.names_identity(name) for name in (watched.shadow.name, watched.host)]
    places = [Path(f"/proc/{pid}/ns/net").stat() for pid in (zebra, bgpd)]
    assert [(each.st_dev, each.st_ino) for each in places] == wanted
    assert [Path(f"/proc/{pid}").stat().st_uid for pid in (zebra, bgpd)] == [owner(), owner()]
    for name in (watched.host, watched.shadow.name):
        listening = watched.world.run(name, "ss", "-Hlntu")
        assert [line for line in listening.splitlines() if not line.startswith("udp")] == []


def test_the_password_is_for_frr_alone(watched: Watched) -> None:
    """Nobody else reads it, in the configuration or the plan, or on a command line."""
    _, bgpd = watched.both()

    config = frr.run_directory(watched.shadow.name) / "bgpd.conf"
    assert "password secret" in config.read_text()
    assert (config.stat().st_mode & 0o777, config.stat().st_uid) == (
        0o400,
        pwd.getpwnam("frr").pw_uid,
    )
    assert (watched.run_dir / "evpn/plan.json").stat().st_mode & 0o777 == 0o600
    assert (watched.run_dir / "evpn").stat().st_mode & 0o777 == 0o700
    assert b"secret" not in Path(f"/proc/{bgpd}/cmdline").read_bytes()


def test_what_dies_is_started_again(watched: Watched) -> None:
    """The other one keeps running."""
    zebra, bgpd = watched.both()

    watched.kill(bgpd, "bgpd")
    again = watched.both()
    assert (again[0], again[1] != bgpd) == (zebra, True)
    os.kill(zebra, signal.SIGKILL)
    watched.world.wait_until(
        lambda: frr.process_of(watched.shadow.name, "zebra") is None, "its end"
    )
    last = watched.both()

    assert (last[0] != zebra, last[1]) == (True, again[1])


def test_a_new_configuration_restarts_bgpd_alone(watched: Watched) -> None:
    """Zebra has none."""
    zebra, bgpd = watched.both()
    config = watched.plan.config.replace("secret", "another")

    supervisor.write_plan(watched.run_dir, replace(watched.plan, config=config))
    again = watched.both()

    assert (again[0], again[1] != bgpd) == (zebra, True)


def test_another_supervisor_adopts_them(watched: Watched) -> None:
    """A supervisor that was killed leaves both running."""
    before = watched.both()
    watched.supervisor = Supervisor(watched.state_dir / "evpn.json", watched.run_dir)

    assert watched.both() == before


def test_they_end_with_the_shadow(watched: Watched) -> None:
    """As after a reset, which deletes the plan as well."""
    watched.both()

    netns.remove(watched.shadow.name)
    assert watched.reconcile() == []

    assert frr.process_of(watched.shadow.name, "zebra") is None
    assert frr.process_of(watched.shadow.name, "bgpd") is None
    assert not frr.run_directory(watched.shadow.name).exists()


def test_a_pid_file_of_another_process_is_not_believed(watched: Watched) -> None:
    """A number that was given again is no daemon of FRR."""
    path = frr.make_run_directory(watched.shadow.name) / "zebra.pid"
    path.write_text(str(os.getpid()))

    assert frr.process_of(watched.shadow.name, "zebra") is None
    path.unlink()


def test_connections_to_neighbors_are_found(watched: Watched) -> None:
    """Those to port 179 that are established, and no others."""
    world, host = watched.world, watched.host
    script = (
        "import socket as s, sys\n"
        "for a, p in (('127.9.0.1', 179), ('127.9.0.2', 180)):\n"
        "    l = s.socket(); l.bind((a, p)); l.listen()\n"
        "    c = s.create_connection((a, p)); globals()[f'k{p}'] = (l, c, l.accept())\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        ["nsenter", f"--net={netns.path_of(host)}", "python3", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        with netns.inside(world.fd(host)):
            found = connections()
        running.stdin.close()

    assert found.keys() == {parse_ip("127.9.0.1")}
    assert all(inode > 0 for inode in found[parse_ip("127.9.0.1")])


def test_a_daemon_may_keep_its_errors_open(
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """As FRR 10 does; what it said until it was ready, or failed, is known at once."""
    for name in frr.DAEMONS:
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho bad {name} >&2\nsleep 100 & echo $! >$0.pid\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setattr(frr, "PROGRAMS", tmp_path)

    watched.reconcile()

    for name in frr.DAEMONS:
        os.kill(int((tmp_path / f"{name}.pid").read_text()), signal.SIGKILL)
        assert f"{name} did not start: bad {name}" in caplog.text


def test_a_missing_frr_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its package."""
    monkeypatch.setattr(frr, "PROGRAMS", tmp_path)

    with pytest.raises(OverlayError, match="FRR is missing") as caught:
        frr.require_programs()

    assert "apt install frr" in (caught.value.hint or "")


def test_nothing_starts_while_evpn_is_disabled(tmp_path: Path) -> None:
    """Without settings on disk there is no supervisor, also by hand."""
    with pytest.raises(ConflictError, match="not enabled"):
        supervisor.run(tmp_path, tmp_path / "run")
    process.ensure_supervisor(tmp_path, tmp_path / "run")

    assert not (tmp_path / "run").exists()
    assert not supervisor.is_running(tmp_path / "run")
