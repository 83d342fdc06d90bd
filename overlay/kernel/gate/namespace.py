"""The namespace that translates: its name, which keeps it, and its kernel parameters.

It is known, like a sandbox, by its loopback's alias, which also has what the next agent must know,
and outlives the agent with the connections that it translates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from overlay import failpoint
from overlay.core.gate.port_block import PortBlock
from overlay.errors import NotFoundError, UsageError
from overlay.kernel import netns
from overlay.kernel.gate import loopback
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.link_decoder import ALIAS_DEFAULT
from overlay.kernel.netlink.link_lookup import delete_links, links_best_effort
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId

ALIAS: Final = f"{ALIAS_DEFAULT}:gate"
"""The alias of the loopback inside, and of the pairs' ends in the host's namespace."""

_BLOCK: Final = re.compile(r":(\d{1,5})-(\d{1,5})$", re.ASCII)
_PORT_MAX: Final = 65_535
_LOOPBACK_INDEX: Final = 1
# Set before any device exists, so that each is created with them (ip-sysctl.rst).
_SYSCTLS: Final = (
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/send_redirects", "0"),  # each packet leaves by the interface it came by
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),  # none: no fe80::, and so no redirects
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    # No error is held back: nearly all are for the host itself, which limits none of its own, and
    # to IPv6's limit all adds that is sent on by the link it came by (net/ipv6/ip6_output.c). For
    # IPv6 this is a list of the types that are limited; nobody sends type 0.
    ("ipv4/icmp_ratemask", "0"),
    ("ipv6/icmp/ratemask", "0"),
)


def namespace_name(node_id: NodeId) -> str:
    """Return the namespace's name, unique by node. Several agents may share a host."""
    return f"overlayd-gate-{node_id[:3].hex()}"


class GateNamespace:
    """The namespace of one node, open."""

    def __init__(self, name: str, run_dir: Path | None = None) -> None:
        """Open the namespace, or create it. Raises OverlayError."""
        self.name = name
        self._run_dir = run_dir
        try:
            self.fd = netns.open_fd(netns.path_of(name))
        except (NotFoundError, UsageError):  # UsageError: a stale name left by a crash
            self.fd = netns.create(name)
        with ExitStack() as undo:
            undo.callback(os.close, self.fd)
            self.socket = NetlinkSocket(self.fd)
            undo.callback(self.socket.close)
            self._prepare()
            undo.pop_all()

    def _prepare(self) -> None:
        _write(self.fd, _SYSCTLS)
        if not is_gate(self._alias()):
            self._set_alias((), None)
        self.socket.transact([link_requests.set_up(_LOOPBACK_INDEX)])

    @property
    def is_named(self) -> bool:
        """Return whether the name still refers to this namespace."""
        return netns.names_identity(self.name) == netns.identity(self.fd)

    def restore_name(self) -> None:
        """Give the namespace its name again. Raises OSError."""
        netns.give_name(self.fd, self.name)

    def has_ipv6(self) -> bool:
        """Return whether the kernel has IPv6."""
        return Path("/proc/net/if_inet6").exists()

    # --- the block ----------------------------------------------------------------------

    def keep_block(self, block: PortBlock) -> None:
        """Record the ports with which the namespace masquerades, for the next agent."""
        if self.kept_block() != block:
            self._set_alias(self._recorded(), block)

    def kept_block(self) -> PortBlock | None:
        """Return the ports that `keep_block` recorded; None before."""
        found = _BLOCK.search(self._alias())
        if found is None:
            return None
        block = PortBlock(int(found[1]), int(found[2]))
        return block if block.first <= block.last <= _PORT_MAX else None

    # --- the host's loopback ------------------------------------------------------------

    def prepare_loopback(self) -> None:
        """Let the loopback of the thread's namespace receive what comes back to it.

        What this changes is recorded first: in the run directory, and in the alias of the loopback
        inside.
        """
        recorded = self._recorded()
        off = loopback.switched_off()
        changed = recorded | loopback.read_record(self._run_dir) | off
        loopback.write_record(self._run_dir, changed)
        if changed - recorded:
            self._set_alias(changed, self.kept_block())
        loopback.switch(off, is_on=True)

    def is_loopback_ready(self) -> bool:
        """Return whether nobody has undone `prepare_loopback`."""
        return not loopback.switched_off()

    def restore_loopback(self) -> None:
        """Undo `prepare_loopback`."""
        recorded = self._recorded()
        changed = recorded | loopback.read_record(self._run_dir)
        if changed:
            loopback.switch(changed, is_on=False)
        if recorded:
            self._set_alias((), self.kept_block())
        loopback.write_record(self._run_dir, ())

    def _recorded(self) -> set[str]:
        return set(self._alias().removeprefix(ALIAS).split(":")) & loopback.PARAMETERS

    def _alias(self) -> str:
        message = self.socket.get(link_requests.get_link("lo"))[0]
        return link_decoder.decode(message).alias

    def _set_alias(self, recorded: Iterable[str], block: PortBlock | None) -> None:
        ports = () if block is None else (f"{block.first}-{block.last}",)
        alias = ":".join((ALIAS, *sorted(recorded), *ports))
        self.socket.request(link_requests.set_alias(_LOOPBACK_INDEX, alias))

    # --- its end ------------------------------------------------------------------------

    def close(self) -> None:
        """Close the namespace, which stays."""
        self.socket.close()
        os.close(self.fd)

    def delete_pairs(self) -> None:
        """Delete the pairs: the kernel destroys a namespace some time after its name is gone."""
        pairs = [each.index for each in links_best_effort(self.socket, "veth")]
        delete_links(self.socket, pairs)


def is_gate(alias: str) -> bool:
    """Return whether the alias of a loopback marks its namespace as a gate's."""
    return alias == ALIAS or alias.startswith(f"{ALIAS}:")


def disable_ipv6(link: str) -> None:
    """Have a link of the thread's namespace send nothing of its own by IPv6."""
    with netns.closing(netns.own_fd()) as here:
        _write(here, [(f"ipv6/conf/{link}/disable_ipv6", "1")])


def _write(netns_fd: int, settings: Iterable[tuple[str, str]]) -> None:
    failpoint.failpoint("gate.sysctl")
    with netns.inside(netns_fd):
        for path, value in settings:
            with suppress(OSError):  # a kernel without IPv6 has no such file
                Path("/proc/sys/net", path).write_text(value, encoding="ascii")
