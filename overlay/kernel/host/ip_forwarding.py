"""Enable IP forwarding for exposed networks, no more than needed.

`restore_sysctls` undoes it.

Owns: the sysctls of the host that overlayd changes (Documentation/networking/ip-sysctl.rst). IPv4
forwards packets received on an interface with `net.ipv4.conf.IF.forwarding` on. If the host is not
a router (`ip_forward`), overlayd's and the other interfaces are switched on one by one, and the
host's table (`kernel.nft.host.host_table`) prevents routing among the others. IPv6 can do the same
since Linux 6.17 (`force_forwarding`); before, only the switch for all interfaces exists.

Changes are recorded first (`sysctl_record`). Switches that were on already, because of Docker or by
hand, are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from overlay import failpoint
from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.core.dataplane.link_state import (
    GATE_LINK_PREFIX,
    HOST_LINK_PREFIX,
    SHORTCUT_HOST_PREFIX,
)
from overlay.core.encryption.device import DEVICES
from overlay.errors import OverlayError
from overlay.kernel.host import sysctl_record
from overlay.kernel.host.sysctl_record import Links, SysctlRecord, interface_of, present_links

ROOT: Final = Path("/proc/sys/net")
_NOT_LINKS: Final = frozenset({"all", "default", "lo", *DEVICES})  # of the tunnels: see nft
# Of a node that has not said yet that the link is its own, or of another node.
_OVERLAYD_LINKS: Final = (HOST_LINK_PREFIX, SHORTCUT_HOST_PREFIX, GATE_LINK_PREFIX)
_ALL_IPV4: Final = "ipv4/conf/all/forwarding"
_ALL_IPV6: Final = "ipv6/conf/all/forwarding"
# A host that forwards IPv6 accepts router advertisements only on interfaces where accept_ra is 2
# (ip-sysctl.rst). Otherwise enabling forwarding would cost the host its own default route.
_ACCEPT_RA_AS_ROUTER: Final = "2"
_NONE: Final = SysctlRecord()


class Forwarding(NamedTuple):
    """The result of `enable_forwarding`."""

    opened: frozenset[ForwardingInterface]  # other interfaces that forward because of overlayd
    changed: list[str]  # sysctls changed by this call
    recorded: SysctlRecord  # the values before overlayd's, as on disk


def enable_forwarding(
    run_dir: Path,
    own: Collection[str],
    *,
    ipv6: bool,
    root: Path = ROOT,
    known: SysctlRecord = _NONE,
    guarded: Iterable[ForwardingInterface] = (),
    find_links: Callable[[], Links] = present_links,
) -> Forwarding:
    """Make the host forward for the interfaces `own`. Raises OverlayError or OSError.

    `known`: what an earlier call returned as recorded; `guarded`: the opened interfaces of this
    node's table as the agent found it. Both are written again if they are missing in the run
    directory: without them nobody knows what forwards because of overlayd.
    """
    links = find_links()
    on_disk = sysctl_record.load(run_dir)
    recorded = _recorded(on_disk, known, guarded, links)
    # One that came just now is for the next pass: without its index it can't be guarded.
    wanted = {
        name: value
        for name, value in _wanted(root, own, recorded, ipv6=ipv6).items()
        if (link := interface_of(name)) in own or link == "all" or link in links.indexes
    }
    found = {name: _read(root, name) for name in wanted}
    before = {
        name: value for name, value in found.items() if value is not None and value != wanted[name]
    }
    unrecorded = {name: value for name, value in before.items() if interface_of(name) not in own}
    recorded = recorded.including(unrecorded, links)
    if recorded != on_disk:
        # Recorded first: after a crash in between, undoing a change not made is harmless.
        sysctl_record.save(run_dir, recorded)
    for name in before:
        _write(root, name, wanted[name])
    return Forwarding(_opened(root, own, recorded), sorted(unrecorded), recorded)


def _recorded(
    on_disk: SysctlRecord,
    known: SysctlRecord,
    guarded: Iterable[ForwardingInterface],
    links: Links,
) -> SysctlRecord:
    """Return what was recorded, by the present names."""
    recorded = on_disk if on_disk.values else known
    return recorded.following(links).including_guarded(guarded, links)


def _opened(
    root: Path, own: Collection[str], recorded: SysctlRecord
) -> frozenset[ForwardingInterface]:
    """Return what must be guarded: whatever overlayd has switched on, needed now or not."""
    found = (
        (recorded.indexes.get(link), 4 if name.startswith("ipv4/") else 6)
        for name in recorded.values
        if name.endswith("forwarding") and (link := interface_of(name)) not in {"all", *own}
    )
    routers = {family for family in (4, 6) if _is_router(root, f"ipv{family}", recorded)}
    return frozenset(
        ForwardingInterface(index, family)
        for index, family in found
        if index is not None and family not in routers
    )


def _wanted(
    root: Path, own: Collection[str], recorded: SysctlRecord, *, ipv6: bool
) -> dict[str, str]:
    ipv6_wanted = _wanted_ipv6(root, own, enabled_here=_ALL_IPV6 in recorded.values) if ipv6 else {}
    return _wanted_ipv4(root, own) | ipv6_wanted


def _wanted_ipv4(root: Path, own: Collection[str]) -> dict[str, str]:
    if _read(root, _ALL_IPV4) == "1":  # a router already, not because of overlayd
        return {f"ipv4/conf/{name}/forwarding": "1" for name in own}
    return {f"ipv4/conf/{name}/forwarding": "1" for name in _links(root, "ipv4", own)}


def _wanted_ipv6(root: Path, own: Collection[str], *, enabled_here: bool) -> dict[str, str]:
    if _read(root, _ALL_IPV6) == "1" and not enabled_here:  # a router already
        return {}
    if _read(root, "ipv6/conf/all/force_forwarding") is not None:
        return {f"ipv6/conf/{name}/force_forwarding": "1" for name in _links(root, "ipv6", own)}
    accepting = (
        f"ipv6/conf/{name}/accept_ra"
        for name in _links(root, "ipv6", own)
        if name not in own and _read(root, f"ipv6/conf/{name}/accept_ra") == "1"
    )
    return dict.fromkeys(accepting, _ACCEPT_RA_AS_ROUTER) | {_ALL_IPV6: "1"}


def _links(root: Path, family: str, own: Collection[str]) -> list[str]:
    names = {path.name for path in (root / family / "conf").glob("*")} - _NOT_LINKS
    return sorted(each for each in names if each in own or not each.startswith(_OVERLAYD_LINKS))


def restore_sysctls(
    run_dir: Path,
    root: Path = ROOT,
    *,
    known: SysctlRecord = _NONE,
    guarded: Iterable[ForwardingInterface] = (),
    find_links: Callable[[], Links] = present_links,
) -> list[str]:
    """Restore and return the sysctls that `enable_forwarding` changed, which takes the same.

    Those that were changed again since are kept. If the host has been made a router meanwhile, its
    interfaces are left alone. Raises OSError.
    """
    recorded = _recorded(sysctl_record.load(run_dir), known, guarded, find_links())
    restored = _restore(root, recorded)
    (run_dir / sysctl_record.MEMORY_NAME).unlink(missing_ok=True)
    return restored


def restore_guarded(guarded: Iterable[ForwardingInterface]) -> list[str]:
    """Have interfaces forward no longer that a table guards which is about to go.

    Returns the sysctls. Raises OSError.
    """
    return _restore(ROOT, _NONE.including_guarded(guarded, present_links()))


def _restore(root: Path, recorded: SysctlRecord) -> list[str]:
    restored: list[str] = []
    routers = {family for family in ("ipv4", "ipv6") if _is_router(root, family, recorded)}
    for name, value in recorded.values.items():
        written = _ACCEPT_RA_AS_ROUTER if name.endswith("/accept_ra") else "1"
        if _read(root, name) == written and not (
            name.split("/")[0] in routers and name != _ALL_IPV6
        ):
            failpoint.failpoint("host.sysctl")
            with suppress(OSError):
                (root / name).write_text(value, encoding="ascii")
                restored.append(name)
    return sorted(restored)


def _is_router(root: Path, family: str, recorded: SysctlRecord) -> bool:
    switch = _ALL_IPV4 if family == "ipv4" else _ALL_IPV6
    return _read(root, switch) == "1" and switch not in recorded.values


# For each uplink: packets may arrive through another segment's uplink than the reply takes;
# containers cannot change the host's routes.
_GUARDS: Final = {
    "ipv4/conf/{}/rp_filter": "2",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/accept_ra": "0",
}


def _guards(name: str) -> dict[str, str]:
    return {form.format(name): value for form, value in _GUARDS.items()}


def guard_link(name: str) -> None:
    """Set the sysctls of an uplink. Raises OverlayError."""
    for path, value in _guards(name).items():
        if _read(ROOT, path) not in (None, value):
            _write(ROOT, path, value)


_ROUTE_LOCALNET: Final = "ipv4/conf/{}/route_localnet"


def route_localnet(names: Collection[str], *, is_on: bool, root: Path = ROOT) -> None:
    """Let connections from 127.0.0.1 be translated to containers by these uplinks, or not.

    With it on, rules must keep loopback addresses of all others out (CVE-2020-8558): they come
    before it, and go after it. Raises OverlayError.
    """
    wanted = "1" if is_on else "0"
    for name in names:
        path = _ROUTE_LOCALNET.format(name)
        if _read(root, path) not in (None, wanted):
            _write(root, path, wanted)


def missing_sysctls(
    run_dir: Path,
    own: Collection[str],
    *,
    ipv6: bool,
    routes_localnet: bool | None = None,
    root: Path = ROOT,
) -> list[str]:
    """Return sysctls that differ from what this module sets; None: whatever `route_localnet` is."""
    wanted = _wanted(root, own, sysctl_record.load(run_dir), ipv6=ipv6)
    if routes_localnet is not None:
        wanted |= {_ROUTE_LOCALNET.format(name): str(int(routes_localnet)) for name in own}
    for name in own:
        wanted |= _guards(name)
    return sorted(name for name, value in wanted.items() if _read(root, name) not in (None, value))


def _write(root: Path, name: str, value: str) -> None:
    failpoint.failpoint("host.sysctl")
    try:
        (root / name).write_text(value, encoding="ascii")
    except FileNotFoundError:
        pass  # the interface was just deleted
    except OSError as error:
        raise OverlayError(
            f"cannot set net/{name}",
            why=error.strerror or str(error),
            hint=f"Set it by hand: echo {value} > {root / name}",
        ) from error


def _read(root: Path, name: str) -> str | None:
    try:
        return (root / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
