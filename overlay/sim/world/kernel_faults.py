"""Tampering with a simulated kernel.

Owns: the kinds of tampering.
Does not: repair anything.
"""

from __future__ import annotations

import random

from overlay.core.dataplane.link_state import Bridge, Port, Vxlan
from overlay.core.dataplane.operations import row_key
from overlay.core.dataplane.state import BridgeFdbRow, FdbRow, NeighborRow
from overlay.model import Ip, Mac
from overlay.sim.host.kernel import Kernel, Sandbox


def tamper(kernel: Kernel, how: str, rng: random.Random) -> bool:
    """Tamper with one sandbox of the kernel.

    Returns whether there was anything to change.
    """
    if not kernel.sandboxes:
        return False
    if how == "no memory":
        kernel.failing = True
        return True
    sandbox = kernel.sandboxes[rng.choice(sorted(kernel.sandboxes))]
    match how:
        case "delete":
            return _delete_rows(sandbox, rng)
        case "add":
            return _add_rows(sandbox, rng)
        case _:
            return _alter_link(kernel, sandbox, rng)


def _delete_rows(sandbox: Sandbox, rng: random.Random) -> bool:
    keys = sorted(sandbox.rows)
    for key in rng.sample(keys, min(len(keys), 3)):
        del sandbox.rows[key]
    return bool(keys)


def _add_rows(sandbox: Sandbox, rng: random.Random) -> bool:
    for link in sorted(sandbox.links):
        if not isinstance(sandbox.links[link], Vxlan):
            continue
        mac = Mac(b"\x02" + rng.randbytes(5))
        bridge = link.replace("vxlan", "br")
        for row in (
            FdbRow(link, mac, Ip(rng.randbytes(4))),
            BridgeFdbRow(link, mac),
            NeighborRow(bridge, Ip(rng.randbytes(4)), mac),
        ):
            if row.link in sandbox.links:
                sandbox.rows[row_key(row)] = row
        return True
    return False


def _alter_link(kernel: Kernel, sandbox: Sandbox, rng: random.Random) -> bool:
    names = sorted(name for name, link in sandbox.links.items() if not isinstance(link, Port))
    if not names:
        return False
    name = rng.choice(names)
    link = sandbox.links[name]
    if isinstance(link, Bridge) and rng.random() < 0.5:
        sandbox.links[name] = link._replace(mtu=576, altered=("up",))
    else:
        kernel.delete_link(sandbox, name)
    return True
