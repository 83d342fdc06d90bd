"""What a host must forward for its exposed networks, and no more; undone by `restore`.

Owns the sysctls of the host that we change. IPv4 forwards what comes in by an interface whose
own switch is on (`net.ipv4.conf.IF.forwarding`): where nobody has made the host a router
(`ip_forward`), ours and the others' interfaces are switched on one by one, and the host's table
(`kernel.nft.host_table`) keeps the others from being routed among each other. IPv6 can do the same
from Linux 6.17 on (`force_forwarding`); before, the switch for all is the only one.

What we changed is remembered under the run directory, which like the sysctls does not outlive a
boot. A switch that was on already, by Docker or by hand, is not touched, neither now nor later.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from overlay.core.dataplane.host_rules import ForwardingInterface
from overlay.errors import OverlayError

MEMORY_NAME: Final = "sysctls.json"
ROOT: Final = Path("/proc/sys/net")
_NOT_LINKS: Final = frozenset({"all", "default", "lo"})
_ALL_IPV4: Final = "ipv4/conf/all/forwarding"
_ALL_IPV6: Final = "ipv6/conf/all/forwarding"
# A host that forwards IPv6 heeds router advertisements only on interfaces where accept_ra is 2
# (kernel: ip-sysctl): without it, it would lose its own default route to our switch.
_ROUTER_TOO: Final = "2"


class Forwarding(NamedTuple):
    """What `enable` found and did."""

    opened: frozenset[ForwardingInterface]  # others' interfaces that forward because of us
    changed: list[str]  # sysctls, just now


def enable_forwarding(
    run_dir: Path, own: Collection[str], *, ipv6: bool, root: Path = ROOT
) -> Forwarding:
    """Let the host forward for the interfaces `own`. Raises OverlayError."""
    remembered = _remembered(run_dir)
    wanted = _wanted(root, own, remembered, ipv6=ipv6)
    found = {name: _read(root, name) for name in wanted}
    before = {
        name: value for name, value in found.items() if value is not None and value != wanted[name]
    }
    fresh = {name: value for name, value in before.items() if _interface(name) not in own}
    if fresh.keys() - remembered.keys():
        # First remembered: a crash in between undoes what was not done, which is harmless.
        remembered = {**fresh, **remembered}
        _remember(run_dir, remembered)
    for name in before:
        _write(root, name, wanted[name])
    opened = frozenset(
        ForwardingInterface(_interface(name), 4 if name.startswith("ipv4/") else 6)
        for name in wanted.keys() & remembered.keys()
        if name.endswith("forwarding") and name != _ALL_IPV6
    )
    return Forwarding(opened, sorted(fresh))


def _wanted(
    root: Path, own: Collection[str], remembered: Mapping[str, str], *, ipv6: bool
) -> dict[str, str]:
    more = _wanted_ipv6(root, own, by_us=_ALL_IPV6 in remembered) if ipv6 else {}
    return _wanted_ipv4(root, own) | more


def _wanted_ipv4(root: Path, own: Collection[str]) -> dict[str, str]:
    if _read(root, _ALL_IPV4) == "1":  # a router already, of its own will
        return {f"ipv4/conf/{name}/forwarding": "1" for name in own}
    return {f"ipv4/conf/{name}/forwarding": "1" for name in _links(root, "ipv4")}


def _wanted_ipv6(root: Path, own: Collection[str], *, by_us: bool) -> dict[str, str]:
    if _read(root, _ALL_IPV6) == "1" and not by_us:  # a router already, of its own will
        return {}
    if _read(root, "ipv6/conf/all/force_forwarding") is not None:
        return {f"ipv6/conf/{name}/force_forwarding": "1" for name in _links(root, "ipv6")}
    heeding = (
        f"ipv6/conf/{name}/accept_ra"
        for name in _links(root, "ipv6")
        if name not in own and _read(root, f"ipv6/conf/{name}/accept_ra") == "1"
    )
    return dict.fromkeys(heeding, _ROUTER_TOO) | {_ALL_IPV6: "1"}


def _links(root: Path, family: str) -> list[str]:
    return sorted({path.name for path in (root / family / "conf").glob("*")} - _NOT_LINKS)


def _interface(name: str) -> str:
    return name.split("/")[2]


def restore_sysctls(run_dir: Path, root: Path = ROOT) -> list[str]:
    """Put back what `enable` changed and nobody changed since; return which sysctls.

    Where somebody has made the host a router meanwhile, its interfaces stay as they are.
    """
    restored: list[str] = []
    routers = {family for family in ("ipv4", "ipv6") if _routes(root, family, run_dir)}
    for name, value in _remembered(run_dir).items():
        ours = _ROUTER_TOO if name.endswith("/accept_ra") else "1"
        if _read(root, name) == ours and not (name.split("/")[0] in routers and name != _ALL_IPV6):
            with suppress(OSError):
                (root / name).write_text(value, encoding="ascii")
                restored.append(name)
    (run_dir / MEMORY_NAME).unlink(missing_ok=True)
    return sorted(restored)


def _routes(root: Path, family: str, run_dir: Path) -> bool:
    switch = _ALL_IPV4 if family == "ipv4" else _ALL_IPV6
    return _read(root, switch) == "1" and switch not in _remembered(run_dir)


# Of each interface of ours: the host's 127.0.0.1 may be translated to what is behind it; packets
# may come in by another segment's interface than the way back takes; nobody behind it tells the
# host where to route.
_GUARDS: Final = {
    "ipv4/conf/{}/route_localnet": "1",
    "ipv4/conf/{}/rp_filter": "2",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/accept_ra": "0",
}


def _guards(name: str) -> dict[str, str]:
    return {form.format(name): value for form, value in _GUARDS.items()}


def guard_link(name: str) -> None:
    """Set up an interface of ours. Raises OverlayError."""
    for path, value in _guards(name).items():
        if _read(ROOT, path) not in (None, value):
            _write(ROOT, path, value)


def missing_sysctls(
    run_dir: Path, own: Collection[str], *, ipv6: bool, root: Path = ROOT
) -> list[str]:
    """Return the sysctls that are not as `enable` and `guard_link` leave them."""
    wanted = _wanted(root, own, _remembered(run_dir), ipv6=ipv6)
    for name in own:
        wanted |= _guards(name)
    return sorted(name for name, value in wanted.items() if _read(root, name) not in (None, value))


def _write(root: Path, name: str, value: str) -> None:
    try:
        (root / name).write_text(value, encoding="ascii")
    except FileNotFoundError:
        pass  # the interface has just gone
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


def _remember(run_dir: Path, values: dict[str, str]) -> None:
    draft = run_dir / f"{MEMORY_NAME}.new"
    draft.write_text(json.dumps(values), encoding="ascii")
    draft.replace(run_dir / MEMORY_NAME)


def _remembered(run_dir: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        found = json.loads((run_dir / MEMORY_NAME).read_text(encoding="ascii"))
        if isinstance(found, dict):
            return {str(name): str(value) for name, value in found.items()}
    return {}
