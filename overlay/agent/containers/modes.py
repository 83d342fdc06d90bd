"""The networks of a bare container that are no overlay's: none, the host's, another container's.

Owns: the words of `container add --network` that name no network, what can't go with them, and
how a container of such a kind is named and unnamed. They mean what they mean to Docker's users:
`none` is a namespace with a loopback and nothing else, `host` is the host's own namespace,
`container:NAME` that of another container made here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overlay import failpoint
from overlay.agent.state.documents import StoredContainer
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.kernel import netns
from overlay.kernel.reset import FILES_DIRECTORY, HOST_MARK
from overlay.model import RESERVED_NETWORK_NAMES

Json = dict[str, Any]
NONE, HOST = RESERVED_NETWORK_NAMES
_SHARED = "container:"

# What belongs to an interface, and so to a network; and what belongs to a namespace of one's own.
_OF_AN_INTERFACE = (
    "ip",
    "mac",
    "ifname",
    "aliases",
    "labels",
    "rate_in",
    "rate_out",
    "gateway_priority",
)
_OF_A_NAMESPACE = ("dns_servers", "dns_search", "dns_options")


@dataclass(frozen=True, slots=True)
class NetworkMode:
    """Whose namespace a container is in: its own, unless one of these says otherwise."""

    host: bool = False
    shares: str = ""  # the container whose namespace it is

    def __str__(self) -> str:
        return HOST if self.host else f"{_SHARED}{self.shares}" if self.shares else "own"

    @property
    def is_own(self) -> bool:
        """Whether it has a namespace of its own."""
        return not self.host and not self.shares


def mode_of(container: StoredContainer) -> NetworkMode:
    """Return a container's mode."""
    return NetworkMode(container.host, container.shares)


def is_mode(word: str) -> bool:
    """Say whether a word after --network names no network."""
    return word in RESERVED_NETWORK_NAMES or word.startswith(_SHARED)


def refuse_container_modes(words: list[str]) -> None:
    """Refuse the words that only a new container can have."""
    for word in filter(is_mode, words):
        raise UsageError(
            f"{word!r} is no network to attach to",
            why="a container gets it, or not, when it is made",
            hint=f"overlayd container add NAME --network {word}",
            field="networks",
        )


def requested_mode(
    body: Json, words: list[str], containers: Mapping[str, StoredContainer]
) -> tuple[NetworkMode, bool]:
    """Return the mode asked for, and whether any was named; raises UsageError for nonsense.

    Who shares with a sharer shares with the owner of the namespace. NotFoundError: nobody of
    that name was made here.
    """
    word = next(filter(is_mode, words), None)
    if word is None:
        if not words:
            _refuse_fields(body, "a container without a network", _OF_AN_INTERFACE)
        return NetworkMode(), False
    if len(words) > 1:
        raise UsageError(
            f"--network {word} goes with no other network",
            why=f"asked for: {', '.join(words)}",
            hint="Leave one of them out",
        )
    _refuse_fields(body, f"--network {word}", _OF_AN_INTERFACE)
    if word == NONE:
        return NetworkMode(), True
    _refuse_fields(body, f"--network {word}", _OF_A_NAMESPACE)
    if word == HOST:
        return NetworkMode(host=True), True
    owner = word.removeprefix(_SHARED)
    if owner == body.get("name"):
        raise UsageError(
            f"{owner} can't share its own network",
            hint="Name another container; for one of its own leave --network out",
            field="networks",
        )
    kept = containers.get(owner)
    if kept is None:
        raise NotFoundError(
            f"there is no container {owner!r} to share the network of",
            why="only those made by 'overlayd container add' can be shared by it",
            hint="'overlayd container ls' lists them",
        )
    mode = mode_of(kept)
    return NetworkMode(shares=owner) if mode.is_own else mode, True


def _refuse_fields(body: Json, where: str, fields: tuple[str, ...]) -> None:
    for field in fields:
        if body.get(field):
            raise UsageError(
                f"{field} does not go with {where}",
                why="there is no interface of its own"
                if field in _OF_AN_INTERFACE
                else "its resolv.conf is another's",
                hint="Leave one of them out" if body.get("networks") else "Name a --network",
                field=field,
            )


def require_same(
    kept: StoredContainer, mode: NetworkMode, *, named: bool, attached: list[str]
) -> None:
    """Refuse to turn a container into another kind; raises ConflictError."""
    before = mode_of(kept)
    why = ""
    if before != mode:
        why = f"its network is {before}, not {mode}"
    elif named and before.is_own and attached:
        why = f"it is on {', '.join(attached)}"
    if why:
        raise ConflictError(
            f"there is a container {kept.name!r} already",
            why=why,
            hint=f"Choose another name, or remove it: overlayd container rm {kept.name}",
        )


def sharers(owner: str, containers: Iterable[StoredContainer]) -> list[str]:
    """Return the names of the containers that share another one's namespace."""
    return sorted(each.name for each in containers if each.shares == owner)


def is_linked(name: str, mode: NetworkMode) -> bool:
    """Say whether the name leads where it should; in the kernel thread, for it is the host's."""
    source = netns.OWN_NAMESPACE if mode.host else netns.path_of(mode.shares)
    try:
        found = os.stat(source)  # noqa: PTH116 - /proc paths are magic links
    except OSError:
        return False
    return netns.names_identity(name) == (found.st_dev, found.st_ino)


def link_namespace(name: str, mode: NetworkMode) -> None:
    """Let the name lead to the host's or the shared namespace; in the kernel thread."""
    if not mode.host and not netns.exists(mode.shares):
        raise ConflictError(
            f"the container {mode.shares} has lost its namespace",
            hint=f"Make it again: overlayd container add {mode.shares}",
        )
    netns.remove(name)
    descriptor = netns.own_fd() if mode.host else netns.open_fd(netns.path_of(mode.shares))
    with netns.closing(descriptor):
        try:
            netns.give_name(descriptor, name)
        except OSError as error:
            raise OverlayError(
                f"cannot name a namespace {name}", why=error.strerror or str(error)
            ) from error


def write_files(name: str, mode: NetworkMode) -> None:
    """Show the owner's files in a shared namespace; in the host's, the host's own.

    The host's container has a file of hosts for the sake of its mark: by it, `reset` knows
    the name as ours, for the host's loopback can't be marked.
    """
    directory = FILES_DIRECTORY / name
    failpoint.failpoint("container.files")
    try:
        FILES_DIRECTORY.mkdir(parents=True, exist_ok=True)
        if mode.shares:
            if not directory.is_symlink():
                directory.symlink_to(mode.shares)
            return
        directory.mkdir(exist_ok=True)
        hosts = Path("/etc/hosts")
        text = hosts.read_text(encoding="utf-8") if hosts.exists() else ""
        (directory / "hosts").write_text(f"{HOST_MARK}\n{text}", encoding="utf-8")
    except OSError as error:
        raise OverlayError(
            f"cannot write {directory}", why=str(error.strerror), hint="Is /etc writable?"
        ) from error
