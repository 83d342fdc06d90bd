"""Enable IP forwarding for exposed networks, no more than needed.

`restore_sysctls` undoes it.

Owns: the sysctls of the host that overlayd changes (Documentation/networking/ip-sysctl.rst). IPv4
forwards packets received on an interface with `net.ipv4.conf.IF.forwarding` on. If the host is not
a router (`ip_forward`), overlayd's and the other interfaces are switched on one by one, and the
host's table (`kernel.nft.host.host_table`) prevents routing among the others. IPv6 can do the same
since Linux 6.17 (`force_forwarding`); before, only the switch for all interfaces exists.

Changes are recorded in the run directory, which like the sysctls does not survive a boot. Switches
that were on already, because of Docker or by hand, are never touched.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
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

MEMORY_NAME: Final = "sysctls.json"
ROOT: Final = Path("/proc/sys/net")
_NOT_LINKS: Final = frozenset({"all", "default", "lo", *DEVICES})  # of the tunnels: see nft
# Of a node that has not said yet that the link is its own, or of another node.
_OVERLAYD_LINKS: Final = (HOST_LINK_PREFIX, SHORTCUT_HOST_PREFIX, GATE_LINK_PREFIX)
_ALL_IPV4: Final = "ipv4/conf/all/forwarding"
_ALL_IPV6: Final = "ipv6/conf/all/forwarding"
# A host that forwards IPv6 accepts router advertisements only on interfaces where accept_ra is 2
# (ip-sysctl.rst). Otherwise enabling forwarding would cost the host its own default route.
_ACCEPT_RA_AS_ROUTER: Final = "2"
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class Forwarding(NamedTuple):
    """The result of `enable_forwarding`."""

    opened: frozenset[ForwardingInterface]  # other interfaces that forward because of overlayd
    changed: list[str]  # sysctls changed by this call
    recorded: Mapping[str, str]  # the values before overlayd's, as on disk


def enable_forwarding(
    run_dir: Path,
    own: Collection[str],
    *,
    ipv6: bool,
    root: Path = ROOT,
    known: Mapping[str, str] = _NONE,
) -> Forwarding:
    """Make the host forward for the interfaces `own`. Raises OverlayError.

    `known`: what an earlier call returned as recorded. It is written again if another program has
    removed it from the run directory: without it nobody knows what forwards because of overlayd.
    """
    recorded = _recorded(run_dir)
    if known and not recorded:
        recorded = dict(known)
        _record(run_dir, recorded)
    wanted = _wanted(root, own, recorded, ipv6=ipv6)
    found = {name: _read(root, name) for name in wanted}
    before = {
        name: value for name, value in found.items() if value is not None and value != wanted[name]
    }
    unrecorded = {name: value for name, value in before.items() if _interface(name) not in own}
    if unrecorded.keys() - recorded.keys():
        # Recorded first: after a crash in between, undoing a change not made is harmless.
        recorded = {**unrecorded, **recorded}
        _record(run_dir, recorded)
    for name in before:
        _write(root, name, wanted[name])
    opened = frozenset(
        ForwardingInterface(_interface(name), 4 if name.startswith("ipv4/") else 6)
        for name in wanted.keys() & recorded.keys()
        if name.endswith("forwarding") and name != _ALL_IPV6 and _interface(name) not in own
    )
    return Forwarding(opened, sorted(unrecorded), recorded)


def _wanted(
    root: Path, own: Collection[str], recorded: Mapping[str, str], *, ipv6: bool
) -> dict[str, str]:
    ipv6_wanted = _wanted_ipv6(root, own, enabled_here=_ALL_IPV6 in recorded) if ipv6 else {}
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


def _interface(name: str) -> str:
    return name.split("/")[2]


def restore_sysctls(
    run_dir: Path, root: Path = ROOT, *, known: Mapping[str, str] = _NONE
) -> list[str]:
    """Restore and return the sysctls that `enable_forwarding` changed, which takes `known`, too.

    Those that were changed again since are kept. If the host has been made a router meanwhile, its
    interfaces are left alone.
    """
    restored: list[str] = []
    recorded = _recorded(run_dir) or known
    routers = {family for family in ("ipv4", "ipv6") if _is_router(root, family, recorded)}
    for name, value in recorded.items():
        written = _ACCEPT_RA_AS_ROUTER if name.endswith("/accept_ra") else "1"
        if _read(root, name) == written and not (
            name.split("/")[0] in routers and name != _ALL_IPV6
        ):
            failpoint.failpoint("host.sysctl")
            with suppress(OSError):
                (root / name).write_text(value, encoding="ascii")
                restored.append(name)
    (run_dir / MEMORY_NAME).unlink(missing_ok=True)
    return sorted(restored)


def _is_router(root: Path, family: str, recorded: Container[str]) -> bool:
    switch = _ALL_IPV4 if family == "ipv4" else _ALL_IPV6
    return _read(root, switch) == "1" and switch not in recorded


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
    wanted = _wanted(root, own, _recorded(run_dir), ipv6=ipv6)
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


def _record(run_dir: Path, values: dict[str, str]) -> None:
    failpoint.failpoint("host.sysctl-record")
    draft = run_dir / f"{MEMORY_NAME}.new"
    draft.write_text(json.dumps(values), encoding="ascii")
    draft.replace(run_dir / MEMORY_NAME)


def _recorded(run_dir: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = json.loads((run_dir / MEMORY_NAME).read_text(encoding="ascii"))
        if isinstance(found, dict):
            return {str(name): str(value) for name, value in found.items()}
    return {}
