"""The consequences of `encryption = "required"` in the configuration.

Every network that this host creates is encrypted, and it takes part in no further network in clear.
One that it takes part in already stays in use, as a change of the configuration must cut off no
container, and is named by `status` until it is replaced.

Owns: these rules and their health lines. Does not: know how networks are encrypted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Fault
from overlay.core.dataplane.network_drivers import CAPABILITIES, has_tunnel, is_encrypted
from overlay.errors import ConflictError
from overlay.model import Network

_SHOWN = 5


class EncryptionPolicy:
    """Whether this host may use networks in clear."""

    def __init__(self, context: NodeContext, *, required: bool) -> None:
        self.required = required
        self._directory = context.directory

    def encrypts(self, name: str, driver: str) -> bool:
        """Return whether a new network is encrypted by default.

        An existing network in clear is found again by its definition.
        """
        if not self.required or driver not in CAPABILITIES or not CAPABILITIES[driver].has_tunnel:
            return False
        existing = self._directory.find_network(name)
        return existing is None or is_encrypted(existing)

    def require_allowed(self, network: Network) -> None:
        """Raise ConflictError if this host would begin to take part in a network in clear."""
        if self.required and has_tunnel(network) and not is_encrypted(network):
            raise ConflictError(
                f"network {network.name} is not encrypted, and this host requires encryption",
                why='its configuration has encryption = "required"',
                hint=f"On a host that does not: overlayd encryption on {network.name}; or set "
                'encryption = "optional" in the configuration, and restart the agent',
            )

    def faults(self, incapable: Sequence[str]) -> Iterator[Fault]:
        """Yield the networks in clear with containers here, and the members without WireGuard."""
        if not self.required:
            return
        directory = self._directory
        in_clear = [
            network.name
            for network in directory.networks()
            if has_tunnel(network)
            and not is_encrypted(network)
            and directory.own in directory.participants(network.vni, forwarding=True)
        ]
        if in_clear:
            yield Fault(
                f"encryption is required, and this host has containers on {_listed(in_clear)}, in "
                "clear",
                f"Encrypt it while it is in use: overlayd encryption on {in_clear[0]}",
                "error",
            )
        if incapable:
            yield Fault(
                "encryption is required, and no WireGuard key is known of "
                f"{_listed(list(incapable))}",
                "'overlayd encryption status' there says what is missing; no network can be "
                "created until then. A member that is gone: overlayd forget NAME",
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
