"""Network modes of a bare container: its own namespace, the host's, or another container's.

Owns: the values of `container add --network` that name no network, the options that conflict with
them, and the namespace's name for each mode. They mean the same as with Docker: `none` is a
namespace with loopback only, `host` is the host's namespace, `container:NAME` is the namespace
of another container made by overlayd.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from overlay.agent.state.documents import StoredContainer
from overlay.errors import ConflictError, NotFoundError, OverlayError, UsageError
from overlay.kernel import netns
from overlay.model import RESERVED_NETWORK_NAMES

Json = dict[str, Any]
NONE, HOST = RESERVED_NETWORK_NAMES
_SHARED = "container:"

# Options that apply to an interface, and so need a network; and those that need a namespace.
_INTERFACE_FIELDS = (
    "ip",
    "ips",
    "mac",
    "ifname",
    "aliases",
    "labels",
    "rate_in",
    "rate_out",
    "storm",
    "allow_non_ip",
    "priority",
    "gateway_priority",
    "hands_off",
    "keep",
    "publish",
)
_NAMESPACE_FIELDS = ("dns_servers", "dns_search", "dns_options")


@dataclass(frozen=True, slots=True)
class NetworkMode:
    """Which network namespace a container uses: its own, unless a field says otherwise."""

    host: bool = False
    shares: str = ""  # the container whose namespace it uses

    def __str__(self) -> str:
        return HOST if self.host else f"{_SHARED}{self.shares}" if self.shares else "own"

    @property
    def is_own(self) -> bool:
        """Whether the container has its own namespace."""
        return not self.host and not self.shares


def mode_of(container: StoredContainer) -> NetworkMode:
    """Return a container's mode."""
    return NetworkMode(container.host, container.shares)


def is_mode(word: str) -> bool:
    """Return whether a value of --network is a mode, not a network's name."""
    return word in RESERVED_NETWORK_NAMES or word.startswith(_SHARED)


def refuse_container_modes(words: Iterable[str]) -> None:
    """Raise UsageError if one of an attach's networks is a mode."""
    for word in filter(is_mode, words):
        raise UsageError(
            f"{word!r} is not a network to attach to",
            why="it is a network mode, which a container gets when it is created",
            hint=f"overlayd container add NAME --network {word}",
            field="networks",
        )


def requested_mode(
    body: Json, words: list[str], containers: Mapping[str, StoredContainer]
) -> tuple[NetworkMode, bool]:
    """Return the requested mode, and whether --network named one.

    A container that shares with a sharing container shares with the owner of the namespace.
    Raises UsageError for options that conflict, NotFoundError for an unknown container.
    """
    word = next(filter(is_mode, words), None)
    if word is None:
        if not words:
            _refuse_fields(body, "a container without a network", _INTERFACE_FIELDS)
        return NetworkMode(), False
    if len(words) > 1:
        raise UsageError(
            f"--network {word} cannot be combined with other networks",
            why=f"the request has {', '.join(words)}",
            hint="Drop one of them",
        )
    _refuse_fields(body, f"--network {word}", _INTERFACE_FIELDS)
    if word == NONE:
        return NetworkMode(), True
    _refuse_fields(body, f"--network {word}", _NAMESPACE_FIELDS)
    if word == HOST:
        return NetworkMode(host=True), True
    return _shared_mode(body, word.removeprefix(_SHARED), containers), True


def _shared_mode(body: Json, owner: str, containers: Mapping[str, StoredContainer]) -> NetworkMode:
    if owner == body.get("name"):
        raise UsageError(
            f"{owner} cannot share its own network",
            hint="Name another container, or drop --network to give it its own namespace",
            field="networks",
        )
    container = containers.get(owner)
    if container is None:
        raise NotFoundError(
            f"there is no container {owner!r} to share the network of",
            why="only the network of a container made by 'overlayd container add' can be shared",
            hint="To list these: overlayd container ls",
        )
    mode = mode_of(container)
    return NetworkMode(shares=owner) if mode.is_own else mode


def _refuse_fields(body: Json, where: str, fields: tuple[str, ...]) -> None:
    for field in fields:
        if body.get(field):
            raise UsageError(
                f"{field} cannot be used with {where}",
                why="the container has no interface of its own"
                if field in _INTERFACE_FIELDS
                else "the container has no resolv.conf of its own",
                hint="Drop one of them" if body.get("networks") else "Add --network NETWORK",
                field=field,
            )


def require_same(
    container: StoredContainer, mode: NetworkMode, *, named: bool, attached: list[str]
) -> None:
    """Raise ConflictError if an existing container has another mode than the requested one."""
    before = mode_of(container)
    why = ""
    if before != mode:
        why = f"its network is {before}, not {mode}"
    elif named and before.is_own and attached:
        why = f"it is on {', '.join(attached)}"
    if why:
        raise ConflictError(
            f"container {container.name!r} already exists",
            why=why,
            hint="Choose another name, or remove the container: "
            f"overlayd container rm {container.name}",
        )


def sharers(owner: str, containers: Iterable[StoredContainer]) -> list[str]:
    """Return the names of the containers that share another one's namespace."""
    return sorted(each.name for each in containers if each.shares == owner)


def is_linked(name: str, mode: NetworkMode) -> bool:
    """Return whether a name leads to the namespace of its mode; call in the kernel thread."""
    source = netns.OWN_NAMESPACE if mode.host else netns.path_of(mode.shares)
    try:
        found = os.stat(source)  # noqa: PTH116 - /proc paths are magic links
    except OSError:
        return False
    return netns.names_identity(name) == (found.st_dev, found.st_ino)


def link_namespace(name: str, mode: NetworkMode) -> None:
    """Give a name to the host's or the shared namespace; call in the kernel thread."""
    if not mode.host and not netns.exists(mode.shares):
        raise ConflictError(
            f"container {mode.shares} has lost its namespace",
            why=f"{netns.path_of(mode.shares)} does not exist",
            hint=f"Create it again: overlayd container add {mode.shares}",
        )
    netns.remove(name)
    descriptor = netns.own_fd() if mode.host else netns.open_fd(netns.path_of(mode.shares))
    with netns.closing(descriptor):
        try:
            netns.give_name(descriptor, name)
        except OSError as error:
            raise OverlayError(
                f"cannot create the namespace name {name}",
                why=error.strerror or str(error),
                hint=f"Remove what has the name: ls -l {netns.path_of(name)}",
            ) from error
