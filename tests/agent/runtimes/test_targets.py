"""From the text of a TARGET to one network namespace."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from overlay.agent.runtimes.engines import Engine, EngineContainer
from overlay.agent.runtimes.targets import Target, TargetSources, resolve_target
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError

needs_root = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace"),
]
ID = "3f9c" + "0" * 60


@dataclass
class FakeRuntime:
    """A runtime with just these containers, or one that is broken."""

    kind: str
    title: str
    containers: dict[str, EngineContainer]
    broken: bool = False

    def find(self, name: str) -> EngineContainer | None:
        """Return what it has."""
        if self.broken:
            raise OverlayError(f"{self.title} does not answer")
        return self.containers.get(name)

    def absence(self) -> str | None:
        """Return that it is not there, where it has nothing."""
        return None if self.containers else f"{self.title} does not run here"


def _process() -> Iterator[int]:
    """Yield the id of a process with a network namespace of its own."""
    child = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    yield child.pid
    child.communicate()


@pytest.fixture
def pid() -> Iterator[int]:
    """Run a process in a network namespace of its own."""
    yield from _process()


@pytest.fixture
def other_pid() -> Iterator[int]:
    """Run one more."""
    yield from _process()


def _container(kind: str, name: str, pid: int | None, status: str = "running") -> EngineContainer:
    return EngineContainer(kind, name, ID, pid, status)


def _around(
    tmp_path: Path,
    *,
    netns: dict[str, int] | None = None,
    docker: list[EngineContainer] | None = None,
    podman: list[EngineContainer] | None = None,
    broken: str = "",
) -> TargetSources:
    """Return surroundings where links stand for the mounts of /run/netns."""
    directory = tmp_path / "netns"
    directory.mkdir(exist_ok=True)
    for name, pid in (netns or {}).items():
        (directory / name).symlink_to(f"/proc/{pid}/ns/net")
    runtimes: list[Engine] = [
        FakeRuntime(kind, kind.title(), {c.name: c for c in containers or []}, kind == broken)
        for kind, containers in (("docker", docker), ("podman", podman))
    ]
    return TargetSources(netns_dir=directory, runtimes=tuple(runtimes))


class TestFound:
    """Targets that exist."""

    pytestmark = needs_root

    def test_a_process(self, tmp_path: Path, pid: int) -> None:
        """pid:N is the namespace of that process."""
        assert resolve_target(f"pid:{pid}", _around(tmp_path)) == Target(
            "pid", f"pid-{pid}", f"/proc/{pid}/ns/net", pid, None, f"pid:{pid}"
        )

    def test_a_path(self, tmp_path: Path, pid: int) -> None:
        """A path of /proc tells its process too."""
        path = f"/proc/{pid}/ns/net"

        assert resolve_target(path, _around(tmp_path)) == Target(
            "path", f"pid-{pid}", path, pid, None, path
        )

    def test_a_named_namespace(self, tmp_path: Path, pid: int) -> None:
        """netns:NAME and NAME are the same where only a namespace has that name."""
        sources = _around(tmp_path, netns={"web": pid})
        path = str(sources.netns_dir / "web")
        found = Target("netns", "web", path, None, None, "netns:web")

        assert resolve_target("netns:web", sources) == found
        assert resolve_target("web", sources) == found
        assert resolve_target(path, sources).name == "web"

    @pytest.mark.parametrize("kind", ["docker", "podman"])
    def test_a_container(self, tmp_path: Path, pid: int, kind: str) -> None:
        """By its runtime's name or by the bare one; the id is kept."""
        sources = _around(tmp_path, **{kind: [_container(kind, "web", pid)]})  # type: ignore[arg-type]
        path, by_docker = f"/proc/{pid}/ns/net", kind == "docker"
        found = Target(kind, "web", path, pid, ID, f"{kind}:web", ignores_ipv6_setting=by_docker)

        assert resolve_target(f"{kind}:web", sources) == found
        assert resolve_target("web", sources) == found

    def test_its_text_resolves_to_the_same_again(self, tmp_path: Path, pid: int) -> None:
        """The stored id or name of an attachment finds its container after a restart."""
        sources = _around(tmp_path, netns={"a": pid}, docker=[_container("docker", "b", pid)])
        for text in ("a", "b", f"pid:{pid}", f"/proc/{pid}/ns/net"):
            found = resolve_target(text, sources)
            assert resolve_target(found.text, sources) == found

    def test_one_namespace_with_two_names_is_not_ambiguous(self, tmp_path: Path, pid: int) -> None:
        """A container's namespace may be mounted under the container's name."""
        sources = _around(tmp_path, netns={"web": pid}, docker=[_container("docker", "web", pid)])

        assert resolve_target("web", sources).kind == "netns"

    def test_what_does_not_run_gives_way_to_what_does(self, tmp_path: Path, pid: int) -> None:
        """A stopped container of the same name is no candidate."""
        sources = _around(
            tmp_path,
            docker=[_container("docker", "web", None, "exited")],
            podman=[_container("podman", "web", pid)],
        )

        assert resolve_target("web", sources).kind == "podman"

    @pytest.mark.parametrize(
        ("name", "fit"),
        [("web_", "web"), ("a+b", "a-b"), ("x" * 80, "x" * 63), ("_", ID[:12]), ("Web.1", "Web.1")],
    )
    def test_names_are_made_fit_for_the_network(
        self, tmp_path: Path, pid: int, name: str, fit: str
    ) -> None:
        """Runtimes allow names that can't be a DNS label; the text keeps them as they are."""
        sources = _around(tmp_path, docker=[_container("docker", name, pid)])
        found = resolve_target(f"docker:{name}", sources)

        assert (found.name, found.text) == (fit, f"docker:{name}")


class TestAmbiguous:
    """Names that fit more than one container."""

    pytestmark = needs_root

    def test_the_candidates_are_listed(self, tmp_path: Path, pid: int, other_pid: int) -> None:
        """In the order in which they are looked up, each as it can be given."""
        sources = _around(
            tmp_path,
            netns={"web": pid},
            docker=[_container("docker", "web", other_pid)],
            podman=[_container("podman", "web", other_pid)],
        )
        with pytest.raises(ConflictError) as caught:
            resolve_target("web", sources)

        assert caught.value.why == "candidates: netns:web, docker:web, podman:web"
        assert resolve_target("docker:web", sources).pid == other_pid

    def test_a_target_is_open_until_it_is_closed(self, tmp_path: Path, pid: int) -> None:
        """Its namespace stays the container's, and other candidates are closed."""
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a count of descriptors
        docker = [_container("docker", "web", pid)]
        found = resolve_target("web", _around(tmp_path, netns={"web": pid}, docker=docker))
        place = os.stat(f"/proc/{pid}/ns/net")  # noqa: PTH116  a magic link

        assert found.identity == (place.st_dev, place.st_ino)
        assert os.fstat(found.descriptor).st_ino == place.st_ino
        assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208
        found.close()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    def test_an_ambiguous_name_leaves_nothing_open(
        self, tmp_path: Path, pid: int, other_pid: int
    ) -> None:
        """Both candidates were opened to be compared."""
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        docker = [_container("docker", "web", other_pid)]
        with pytest.raises(ConflictError, match="names 2 containers"):
            resolve_target("web", _around(tmp_path, netns={"web": pid}, docker=docker))
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


class TestRefused:
    """Texts that name no container."""

    @pytest.mark.parametrize(
        "text",
        ["", "foo:bar", "netns:", "pid:", "pid:x", "pid:0", "pid:-1", "pid:99999999999",
         "a/b", "rkt:web", "x\0y"],
    )  # fmt: skip
    def test_what_is_no_target_is_a_usage_error(self, tmp_path: Path, text: str) -> None:
        """With the forms that are."""
        with pytest.raises(UsageError):
            resolve_target(text, _around(tmp_path))

    @pytest.mark.parametrize(
        ("text", "why"),
        [("docker:", "nothing follows the colon"), ("rkt:web", "unknown kind 'rkt'")],
    )
    def test_the_reason_is_the_part_that_is_wrong(
        self, tmp_path: Path, text: str, why: str
    ) -> None:
        """A known kind without a name is not called unknown."""
        with pytest.raises(UsageError) as caught:
            resolve_target(text, _around(tmp_path))

        assert caught.value.why == why

    def test_an_unknown_name_tells_where_it_was_looked_for(self, tmp_path: Path) -> None:
        """Each place in one line, and what is there."""
        sources = _around(tmp_path, docker=[_container("docker", "db", None)])
        (sources.netns_dir / "other").touch()
        (sources.netns_dir / "ov-000001-ab12cd").touch()
        with pytest.raises(NotFoundError) as caught:
            resolve_target("web", sources)

        assert caught.value.why == (
            f"{sources.netns_dir} has: other; Docker has no container of that name;"
            " Podman does not run here"
        )

    def test_a_bare_number_is_told_how_to_mean_a_process(self, tmp_path: Path) -> None:
        """Numbers are looked up as names."""
        with pytest.raises(NotFoundError) as caught:
            resolve_target("4242", _around(tmp_path))
        assert "pid:4242" in caught.value.hint

    @pytest.mark.parametrize("text", ["netns:web", "docker:web", "podman:web", "/run/ovt-none"])
    def test_what_is_not_there_is_not_found(self, tmp_path: Path, text: str) -> None:
        """Whichever way it is named."""
        with pytest.raises(NotFoundError):
            resolve_target(text, _around(tmp_path))

    @pytest.mark.parametrize("text", ["\u00e9" * 300, "netns:" + "x" * 300, "/" + "x" * 300])
    def test_what_is_too_long_for_a_file_is_not_there(self, tmp_path: Path, text: str) -> None:
        """The file system's refusal is no fault of the agent."""
        with pytest.raises(NotFoundError):
            resolve_target(text, _around(tmp_path))

    def test_a_fifo_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        """Opening one waits for its writer, which may never come."""
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(ConflictError, match="is not a network namespace"):
            resolve_target(str(tmp_path / "fifo"), _around(tmp_path))

    def test_a_process_that_is_gone_is_not_found(self, tmp_path: Path) -> None:
        """A child that was waited for is no process any more."""
        child = subprocess.Popen(["true"])
        child.wait()
        with pytest.raises(NotFoundError, match="there is no process"):
            resolve_target(f"pid:{child.pid}", _around(tmp_path))

    @pytest.mark.parametrize("text", ["docker:web", "web"])
    def test_a_container_that_does_not_run_is_a_conflict(self, tmp_path: Path, text: str) -> None:
        """With the line that starts it."""
        sources = _around(tmp_path, docker=[_container("docker", "web", None, "exited")])
        with pytest.raises(ConflictError) as caught:
            resolve_target(text, sources)
        assert "docker start web" in caught.value.hint

    def test_the_hosts_own_namespace_is_refused(self, tmp_path: Path) -> None:
        """Plugging the host itself into a network is never what was meant."""
        sources = _around(tmp_path, docker=[_container("docker", "web", os.getpid())])
        for text in (f"pid:{os.getpid()}", "/proc/self/ns/net", "docker:web", "web"):
            with pytest.raises(ConflictError, match="host's own network namespace"):
                resolve_target(text, sources)

    def test_a_sandbox_of_ours_is_refused(self, tmp_path: Path) -> None:
        """Our own plumbing is no container."""
        sources = _around(tmp_path)
        for name in ("ov-00beef", "overlayd-gate-00beef", "web"):
            (sources.netns_dir / name).touch()
        for name in ("ov-00beef", "overlayd-gate-00beef"):
            with pytest.raises(ConflictError, match="is a namespace of overlayd's own"):
                resolve_target(f"netns:{name}", sources)
        with pytest.raises(NotFoundError) as raised:
            resolve_target("netns:other", sources)
        assert raised.value.why == f"{sources.netns_dir} has: web"

    @pytest.mark.netns
    def test_a_sandbox_is_refused_by_path_and_pid(self, tmp_path: Path, pid: int) -> None:
        """Its namespace shows what it is, whichever way leads to it."""
        command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "set", "lo", "alias"]
        subprocess.run([*command, "overlayd"], check=True)
        link = tmp_path / "link"
        link.symlink_to(f"/proc/{pid}/ns/net")
        sources = _around(tmp_path, docker=[_container("docker", "web", pid)])
        for text in (f"pid:{pid}", f"/proc/{pid}/ns/net", str(link), "docker:web"):
            with pytest.raises(ConflictError, match="is a namespace of overlayd's own"):
                resolve_target(text, sources)

    @pytest.mark.netns
    def test_a_path_that_changes_never_gives_the_host(
        self, tmp_path: Path, pid: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The descriptor that was checked is the one that an attach gets."""
        link, real_open = tmp_path / "link", os.open
        places = itertools.cycle([f"/proc/{pid}/ns/net", "/proc/self/ns/net"])

        def flip() -> None:
            link.unlink(missing_ok=True)
            link.symlink_to(next(places))

        def flipping(path: str, flags: int, mode: int = 0o777) -> int:
            descriptor = real_open(path, flags, mode)
            flip()
            return descriptor

        flip()
        monkeypatch.setattr(os, "open", flipping)
        target = resolve_target(str(link), _around(tmp_path))
        monkeypatch.undo()
        found = os.fstat(target.descriptor)
        target.close()
        place = os.stat(f"/proc/{pid}/ns/net")  # noqa: PTH116  a magic link

        assert (found.st_dev, found.st_ino) == (place.st_dev, place.st_ino) == target.identity

    def test_a_leftover_file_is_refused(self, tmp_path: Path) -> None:
        """After a crash the file may outlive the mount; the way to clean up is named."""
        sources = _around(tmp_path)
        (sources.netns_dir / "web").touch()
        for text in ("netns:web", "web"):
            with pytest.raises(ConflictError) as caught:
                resolve_target(text, sources)
            assert "ip netns delete web" in caught.value.hint

    @pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/etc/hostname", "/dev/null", "/tmp"])  # noqa: S108
    def test_what_is_no_network_namespace_is_refused(self, tmp_path: Path, path: str) -> None:
        """Files, devices, directories, namespaces of another kind."""
        with pytest.raises(ConflictError, match="is not a network namespace"):
            resolve_target(path, _around(tmp_path))

    def test_a_runtime_that_does_not_answer_is_told(self, tmp_path: Path) -> None:
        """Not to know is not the same as not to find."""
        sources = _around(tmp_path, broken="podman")
        with pytest.raises(OverlayError, match="Podman does not answer"):
            resolve_target("web", sources)


def test_a_shortage_is_not_a_wrong_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms of a target are no help to a host that is short of descriptors."""

    def short(path: object) -> int:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr("overlay.kernel.netns.open_if_namespace", short)
    with pytest.raises(OverlayError, match="Too many open files") as caught:
        resolve_target(f"pid:{os.getpid()}")
    assert "`ulimit -n`" in caught.value.hint
