"""Resolve the text of a TARGET to one open network namespace.

Owns: the grammar of targets, the order in which a bare name is looked up, and the namespaces that
are refused: the host's own, a sandbox of overlayd, a leftover file. Does not: query container
runtimes (`engines`), or use the namespace.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from overlay.agent.runtimes.containerd import ContainerdEngine
from overlay.agent.runtimes.engines import DockerEngine, Engine, EngineContainer, PodmanEngine
from overlay.agent.runtimes.incus import IncusEngine
from overlay.agent.runtimes.lxc import LxcEngine
from overlay.agent.runtimes.machines import MachinedEngine
from overlay.agent.runtimes.nerdctl import NerdctlEngine
from overlay.agent.runtimes.units import SUFFIX, UnitEngine
from overlay.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    NotRunningError,
    OverlayError,
    UsageError,
    shortage_hint,
)
from overlay.kernel import netns
from overlay.kernel.sandbox.container_namespace import OWN_NAME, require_container
from overlay.model import fit_name
from overlay.target_kinds import FORMS_TEXT, KIND_BY_WORD, is_path

PLUGIN_KINDS = ("cni", "netavark")
"""Of containers whose runtime attaches them by a plugin: known here while they are attached."""
NO_FILE = (errno.ENAMETOOLONG, errno.ELOOP)
NAMES_SHOWN_MAX = 12
_EXPECTED = ("docker", "podman")  # an error says so where these are missing

_PROCESS_PATH = re.compile(r"/proc/(\d+)(?:/task/\d+)?/ns/net")


@dataclass(frozen=True, slots=True)
class Target:
    """One container's network namespace, held open until `close`.

    The open descriptor stays the container's, even if its path leads to another one meanwhile.
    """

    kind: str  # path, or the word of a `target_kinds.TargetKind`
    name: str  # valid as an endpoint's name
    netns_path: str
    pid: int | None
    container_id: str | None
    text: str  # resolves to the same again, as long as the container is the same
    ignores_ipv6_setting: bool = False  # its engine made the setting, not its user
    resolvers: tuple[str, ...] = ()  # that its engine was given
    runtime_endpoint: str = ""  # Docker's id, if Docker itself moves and configures the interface
    plugin_key: str = ""  # of a container whose runtime attaches it by a plugin
    descriptor: int = field(default=-1, compare=False)
    identity: tuple[int, int] = field(default=(0, 0), compare=False)  # device and inode

    def close(self) -> None:
        """Close the namespace; call once."""
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class TargetSources:
    """The places where targets are looked for; the default is this host."""

    netns_dir: Path = Path("/run/netns")
    proc: Path = Path("/proc")
    runtimes: tuple[Engine, ...] = (
        DockerEngine(),
        PodmanEngine(),
        NerdctlEngine(),
        ContainerdEngine(),
        LxcEngine(),
        IncusEngine(),
        MachinedEngine(),
        UnitEngine(),
    )


THIS_HOST = TargetSources()


def resolve_target(text: str, sources: TargetSources = THIS_HOST) -> Target:
    """Return the open target that `text` names; the caller closes it.

    Raises UsageError for invalid text, NotFoundError, NotRunningError for a container that does
    not run, and ConflictError for a name that is ambiguous. Blocks: it queries the container
    runtimes.
    """
    if not text or "\0" in text:
        raise UsageError("target is empty", hint=_hint(), field="target")
    if is_path(text):
        return _opened(_by_path(text))
    kind, colon, rest = text.partition(":")
    if not colon:
        return _by_name(text, sources)
    if kind in PLUGIN_KINDS:
        raise NotFoundError(
            f"{text} is not attached",
            why="its runtime attaches and detaches it by itself",
            hint="'overlayd endpoint ls' shows the containers that are attached",
        )
    if kind not in KIND_BY_WORD or not rest:
        why = "nothing follows the colon" if kind in KIND_BY_WORD else f"unknown kind {kind!r}"
        raise UsageError(f"{text!r} is not a target", why=why, hint=_hint(), field="target")
    if kind == "netns":
        return _opened(_by_netns(rest, sources))
    if kind == "pid":
        return _opened(_by_pid(rest, sources))
    runtime = next((runtime for runtime in sources.runtimes if runtime.kind == kind), None)
    return _opened(_by_runtime(runtime, rest, sources))


def find_container(
    kind: str, container_id: str, sources: TargetSources = THIS_HOST
) -> EngineContainer | None:
    """Return a runtime's container, running or not; None if it is not found.

    Raises OverlayError if the runtime does not answer. Blocks.
    """
    runtime = next((runtime for runtime in sources.runtimes if runtime.kind == kind), None)
    return None if runtime is None else runtime.find(container_id)


def is_removed(kind: str, container_id: str, sources: TargetSources = THIS_HOST) -> bool:
    """Return whether a runtime is there, answers, and does not have a container.

    One that is stopped says nothing about its containers. Raises OverlayError if the runtime does
    not answer. Blocks.
    """
    for runtime in sources.runtimes:
        if runtime.kind == kind:
            is_there = runtime.absence() is None
            missing = runtime.find(container_id) is None
            return is_there and missing and runtime.absence() is None
    return False


def _hint() -> str:
    return f"A target is {FORMS_TEXT}, a path or a name"


def endpoint_name(kind: str, name: str, container_id: str) -> str:
    """Return the name that an endpoint gets from its container: without namespace or project."""
    name = name.rpartition("/")[2]
    if kind == UnitEngine.kind:
        name = name.removesuffix(SUFFIX)
    return fit_name(name, container_id.rpartition("/")[2][:12])


def _by_path(text: str) -> Target:
    if not text.startswith("/"):
        raise UsageError(f"the path {text!r} does not start at /", hint=_hint(), field="target")
    process = _PROCESS_PATH.fullmatch(text)
    pid = int(process[1]) if process else None
    name = f"pid-{pid}" if pid is not None else Path(text).name
    return Target("path", fit_name(name, "path"), text, pid, None, text)


def _by_netns(name: str, sources: TargetSources) -> Target:
    path = sources.netns_dir / name
    if name in (".", "..") or "/" in name or not _is_there(path):
        known = _names(sources)
        raise NotFoundError(
            f"there is no network namespace {name!r}",
            why=f"{sources.netns_dir} has: {_listed(known)}",
            hint="ip netns list",
        )
    if OWN_NAME.fullmatch(name):
        raise ConflictError(
            f"{name} is a namespace of overlayd's own, not a container",
            hint="overlayd container ls shows bare containers",
        )
    return Target("netns", fit_name(name, "netns"), str(path), None, None, f"netns:{name}")


def _by_pid(text: str, sources: TargetSources) -> Target:
    if not text.isdecimal() or not text.isascii() or len(text) > 10 or int(text) == 0:
        raise UsageError(
            f"{text!r} is not a process id", hint="For example pid:4242", field="target"
        )
    pid = int(text)
    path = sources.proc / str(pid) / "ns" / "net"
    if not _is_there(path.parent):
        raise NotFoundError(f"there is no process {pid}", hint="Did the container end?")
    return Target("pid", f"pid-{pid}", str(path), pid, None, f"pid:{pid}")


def _by_runtime(runtime: Engine | None, name: str, sources: TargetSources) -> Target:
    if runtime is None:
        raise UsageError("this agent asks no such container runtime", hint=_hint())
    container = runtime.find(name)
    if container is None:
        kind = KIND_BY_WORD[runtime.kind]
        raise NotFoundError(
            f"there is no {runtime.title} {kind.noun} {name!r} on this host",
            why=runtime.absence() or "",
            hint=f"To see what there is: {kind.listing}",
        )
    return _running(container, sources)


def _running(container: EngineContainer, sources: TargetSources) -> Target:
    if container.pid is None:
        text = f"{container.kind}:{container.name}"
        raise NotRunningError(
            f"{text} is not running",
            why=f"it is {container.status}",
            hint=f"{KIND_BY_WORD[container.kind].start} {container.name.rpartition('/')[2]}, then "
            "attach it; or attach it at its start, with --wait",
        )
    return Target(
        kind=container.kind,
        name=endpoint_name(container.kind, container.name, container.container_id),
        netns_path=str(sources.proc / str(container.pid) / "ns" / "net"),
        pid=container.pid,
        container_id=container.container_id,
        text=f"{container.kind}:{container.name}",
        ignores_ipv6_setting=container.kind == "docker" and not container.disables_ipv6,
        resolvers=container.resolvers,
    )


def _by_name(name: str, sources: TargetSources) -> Target:
    """Look a bare name up everywhere; it must name one namespace alone."""
    places: list[Callable[[], Target]] = []
    if _is_there(sources.netns_dir / name):
        places.append(lambda: _by_netns(name, sources))
    places += [
        lambda runtime=runtime: _by_runtime(runtime, name, sources)  # type: ignore[misc]
        for runtime in _looked_up(sources)
    ]
    candidates: dict[tuple[int, int], list[Target]] = {}
    faults: list[OverlayError] = []
    with contextlib.ExitStack() as unused:
        for place in places:
            try:
                target = _opened(place())
            except NotFoundError:
                continue
            except OverlayError as error:
                faults.append(error)
                continue
            if target.identity in candidates:
                target.close()
            else:
                unused.callback(target.close)
            candidates.setdefault(target.identity, []).append(target)
        if len(candidates) > 1:
            texts = [target.text for same in candidates.values() for target in same]
            raise ConflictError(
                f"{name!r} names {len(candidates)} containers on this host",
                why=f"candidates: {', '.join(texts)}",
                hint=f"Use one of them, for example {texts[0]}",
            )
        for same in candidates.values():
            unused.pop_all()
            return same[0]
    if faults:
        raise faults[0]
    raise _nothing_found(name, sources)


def _looked_up(sources: TargetSources) -> list[Engine]:
    """Return the runtimes in which a bare name is looked up."""
    return [each for each in sources.runtimes if KIND_BY_WORD[each.kind].looked_up]


def _nothing_found(name: str, sources: TargetSources) -> NotFoundError:
    looked = [f"{sources.netns_dir} has: {_listed(_names(sources))}"]
    for runtime in _looked_up(sources):
        absence = runtime.absence()
        if absence is None:
            noun = KIND_BY_WORD[runtime.kind].noun
            looked.append(f"{runtime.title} has no {noun} of that name")
        elif runtime.kind in _EXPECTED:
            looked.append(absence)
    hint = f"For the process with that id: pid:{name}" if name.isdecimal() else _hint()
    return NotFoundError(
        f"there is no container {name!r} on this host", why="; ".join(looked), hint=hint
    )


def _opened(target: Target) -> Target:
    """Return the target with its namespace open, if that is a container's.

    All checks are of the open descriptor, which the attach then uses: `netns_path` may lead to
    another namespace by then. Raises ConflictError for the host's namespace, and for a sandbox.
    """
    descriptor = _open(target)
    try:
        kind = KIND_BY_WORD.get(target.kind)
        require_container(descriptor, target.text, "" if kind is None else kind.own_network)
        return replace(target, descriptor=descriptor, identity=netns.identity(descriptor))
    except BaseException:
        os.close(descriptor)
        raise


def _open(target: Target) -> int:
    try:
        descriptor = netns.open_if_namespace(target.netns_path)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError) as error:
        raise NotFoundError(
            f"there is no network namespace at {target.netns_path}",
            why="" if target.pid is None else f"process {target.pid} has ended",
            hint=_hint(),
        ) from error
    except PermissionError as error:
        raise ForbiddenError(
            f"the agent may not open {target.netns_path}",
            why="it lacks CAP_SYS_PTRACE or CAP_SYS_ADMIN",
            hint="Run the agent as root, or through its systemd unit",
        ) from error
    except OSError as error:
        known = NotFoundError if error.errno in NO_FILE else OverlayError
        hint = shortage_hint(error) or _hint()
        raise known(
            f"cannot open {target.netns_path}", why=str(error.strerror), hint=hint
        ) from error
    if descriptor is None:
        named = target.kind == "netns"
        raise ConflictError(
            f"{target.netns_path} is not a network namespace",
            why="a namespace was mounted on it once, and is gone" if named else "",
            hint=f"ip netns delete {target.name}, and make it anew" if named else _hint(),
        )
    return descriptor


def _names(sources: TargetSources) -> list[str]:
    try:
        names = [entry.name for entry in sources.netns_dir.iterdir()]
    except OSError:
        return []
    return sorted(name for name in names if not OWN_NAME.fullmatch(name))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    more = len(names) - NAMES_SHOWN_MAX
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long for a file
        return False
