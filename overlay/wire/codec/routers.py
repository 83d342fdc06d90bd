"""A router to and from the body of its declared object: a msgpack array.

Owns: that form, and refusing what no honest agent writes. Does not: know which record is in force.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from overlay import limits
from overlay.core.router.router import Router
from overlay.model import Vni
from overlay.wire.codec import validation

_ALLOW_CLEAR: Final = 1


def encode_router(router: Router) -> bytes:
    """Return the body of a router's declared object; its name is not part of it."""
    fields = [list(router.vnis), _ALLOW_CLEAR * router.allow_clear, router.labels]
    packed: bytes = msgpack.packb(fields)
    return packed


def decode_router(name: str, body: bytes) -> Router:
    """Return the router of a declared object; raises RemoteError for an invalid one."""
    networks, flags, labels = validation.array(validation.unpack(body), 3)
    return Router(
        name=name,
        vnis=_vnis(networks),
        allow_clear=bool(validation.integer(flags, _ALLOW_CLEAR)),
        labels=validation.labels(labels),
    )


def _vnis(value: Any) -> tuple[Vni, ...]:
    found = validation.items(value, limits.ROUTER_NETWORKS_MAX)
    vnis = tuple(Vni(validation.integer(each, limits.VNI_MAX, 1)) for each in found)
    if list(vnis) != sorted(set(vnis)):
        validation.refuse_malformed()
    return vnis
