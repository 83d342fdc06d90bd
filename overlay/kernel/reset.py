"""Remove every trace of overlayd from the kernel.

Works without stored state or a running agent.

Owns: how overlayd's objects are recognized: sandboxes by the alias of their loopback, containers of
`overlayd container` by theirs or by their files, devices by their alias, nftables tables by their
name. Objects without such a mark are kept.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from overlay.core.encryption.device import DEVICES
from overlay.errors import NotFoundError, OverlayError, UsageError
from overlay.kernel import container_files, netns
from overlay.kernel.gate import hooks as gate_hooks
from overlay.kernel.gate.gate import remove_namespace as remove_gate
from overlay.kernel.gate.namespace import is_gate
from overlay.kernel.host import macvlan
from overlay.kernel.native import hooks
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.codec import NetlinkRefusal
from overlay.kernel.netlink.link_decoder import is_overlayd_link
from overlay.kernel.netlink.link_lookup import links_best_effort
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft.foreign_rules import ForeignRules
from overlay.kernel.nft.host.host_table import USER_TABLE_NAME, remove_unused_user_table
from overlay.kernel.nft.tables import NftMissingError, NftTables
from overlay.kernel.sandbox import kernel_support
from overlay.kernel.sandbox.container_namespace import GATE_NAME, NAMESPACE_ALIAS, SANDBOX_NAME
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.kernel.services import leftovers
from overlay.kernel.wireguard import leftovers as wireguard_leftovers
from overlay.kernel.wireguard.link import remove_fences

_TABLE_NAME: Final = re.compile(r"overlayd(?:[-_]\S*)?")


def remove_everything(among: Callable[[str], bool] = lambda _name: True) -> list[str]:
    """Remove overlayd's objects from this host's kernel.

    Returns descriptions of them. `among` restricts the namespaces searched, by name. After
    everything else is removed, raises OverlayError for namespaces that could not be searched, and
    for what the kernel refuses to remove.
    """
    removed: list[str] = []
    errors: list[str] = []
    with _collecting(errors, "native path"), NetlinkSocket() as socket:
        removed += hooks.remove_all(socket)  # they would send frames into sandboxes that are gone
    marked = container_files.marked_names()  # some are links to others, which go first
    for name in filter(among, netns.names()):
        with _collecting(errors, f"namespace {name}"):
            removed += _remove_namespace(name)
    with _collecting(errors, "containers' files"):
        removed += _remove_files_left(marked, among)
    with _collecting(errors, "namespaces"):
        for netns_fd, where in kernel_support.namespaces():
            with _collecting(errors, where):
                gone = macvlan.remove_interfaces_from(netns_fd)
                removed += [f"interface {name} of {where}" for name in gone]
    with _collecting(errors, "services"):
        removed += leftovers.remove_tables()
    with _collecting(errors, "interfaces"):
        removed += _remove_devices(errors)
    with _collecting(errors, "wireguard-go"):
        removed += wireguard_leftovers.clear(DEVICES)
    with _collecting(errors, "routes of encrypted networks"):
        removed += [f"unreachable route {each}" for each in map(_range, remove_fences())]
    with _collecting(errors, "nftables"):
        removed += _remove_tables()
    with _collecting(errors, "rules in DOCKER-USER"):
        removed += _remove_rules()
    # Last: without a gate, they drop what containers send out.
    with _collecting(errors, "gate"), NetlinkSocket() as socket:
        count = len(gate_hooks.remove_all(socket))
        removed += [f"gate's programs on {count} interfaces"] if count else []
    if errors:
        raise OverlayError(
            "some of overlayd's objects may be left",
            why="\n".join(errors),
            hint="Run it again: sudo overlayd reset",
        )
    return removed


@contextmanager
def _collecting(errors: list[str], where: str) -> Iterator[None]:
    """Collect an error of the block, so that everything else is still removed."""
    try:
        yield
    except OverlayError as error:
        errors.append(f"{where}: {error}")
    except OSError as error:
        errors.append(f"{where}: {error.strerror or error}")


def _remove_namespace(name: str) -> list[str]:
    """Remove a namespace if it is overlayd's; return what was removed."""
    alias = _alias(name)
    mark = container_files.mark_of(name)
    if alias == NAMESPACE_ALIAS or (alias is not None and mark == container_files.HOST_MARK):
        _remove_container(name)
        return [f"container namespace {name}"]
    if alias is None:
        # A name without a namespace, left by a crash: the name or its files show whose it is.
        if mark:
            _remove_container(name)
            return [f"name of a container {name}"]
        if SANDBOX_NAME.fullmatch(name) and netns.remove(name):
            return [f"name of a sandbox {name}"]
        if GATE_NAME.fullmatch(name) and netns.remove(name):
            return [f"name of a gate {name}"]
        return []
    if is_gate(alias):
        remove_gate(name)
        return [f"gate {name}"]
    if is_overlayd_link(alias):
        Sandbox.open(name, create=False).destroy()
        return [f"sandbox {name}"]
    return []


def _alias(name: str) -> str | None:
    """Return the alias of a namespace's loopback.

    Returns None if the name refers to no namespace. Raises OverlayError if it cannot be opened
    although it may exist.
    """
    try:
        fd = netns.open_fd(netns.path_of(name))
    except (NotFoundError, UsageError):
        return None
    with netns.closing(fd), NetlinkSocket(fd) as inside:
        message = inside.get(link_requests.get_link("lo"))[0]
        return link_decoder.decode(message).alias


def _remove_container(name: str) -> None:
    netns.remove(name)
    container_files.remove(name)


def _remove_files_left(marked: Iterable[str], among: Callable[[str], bool]) -> list[str]:
    """Remove the files of containers whose name is gone; a namespace that took it keeps its own."""
    left = [each for each in marked if among(each) and each not in netns.names()]
    left = [each for each in left if container_files.is_there(each)]
    for name in left:
        container_files.remove(name)
    return [f"files of container {name}" for name in left]


def _remove_devices(errors: list[str]) -> list[str]:
    removed: list[str] = []
    with NetlinkSocket() as socket:
        for found in links_best_effort(socket):
            is_own = is_overlayd_link(found.alias) or found.name == macvlan.UNFINISHED_NAME
            if found.name != "lo" and is_own:
                refusals = socket.transact([link_requests.delete_link(found.index)])
                errors += [f"interface {found.name}: {each}" for each in refusals if _matters(each)]
                if not refusals:
                    removed.append(f"interface {found.name}")
    return removed


def _matters(refusal: NetlinkRefusal) -> bool:
    return refusal.errno != errno.ENODEV  # it has gone meanwhile, such as with its other end


def _range(prefix: bytes) -> str:
    return str(ipaddress.ip_network((prefix.ljust(16, b"\0"), 8 * len(prefix))))


def _remove_tables() -> list[str]:
    try:
        tables = NftTables()
    except NftMissingError:
        return []
    found = [(family, name) for family, name in tables.names() if _TABLE_NAME.fullmatch(name)]
    removed = [
        name
        for family, name in found
        if (
            remove_unused_user_table(tables)  # kept if an operator added rules
            if name == USER_TABLE_NAME
            else tables.delete(family, name)
        )
    ]
    tables.close()
    return [f"nftables table {name}" for name in removed]


def _remove_rules() -> list[str]:
    try:
        with closing(ForeignRules()) as foreign:
            taken = foreign.remove_accept_rules()
    except NftMissingError:
        return []
    return ["overlayd's rules in DOCKER-USER"] if taken else []
