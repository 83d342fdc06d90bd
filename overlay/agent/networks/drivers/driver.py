"""The interface of a network driver, and what it may ask others to look after.

A new kind of network is one module beside this one, one line in `registry` and one in
`core.dataplane.network_drivers`.
"""

from __future__ import annotations

from typing import Protocol

from overlay.agent.state.database import Row
from overlay.agent.state.documents import Attachment
from overlay.model import Endpoint, Mac, Network, Vni


class NetworkDriver(Protocol):
    """One kind of network: how its endpoints' interfaces are made, checked and removed.

    Endpoints are durable when `connect` is called, and deleted when `disconnect` is: a driver
    never reads or writes records.
    """

    @property
    def name(self) -> str:
        """The name of the kind, as in `overlayd network create --driver`."""

    @property
    def recreates_forever(self) -> bool:
        """Whether a lost interface that cannot be made again is tried again, not given up."""

    def owns(self, attachment: Attachment) -> bool:
        """Return whether an attachment's interface is of a form that this driver makes."""

    def require_supported(self, mac: Mac | None, rates: tuple[int | None, int | None]) -> None:
        """Raise UsageError for options that an endpoint of this kind cannot have.

        `rates` are in and out, in bit/s.
        """

    async def connect(
        self, network: Network, endpoint: Endpoint, attachment: Attachment, descriptor: int
    ) -> Attachment:
        """Make the interface in the namespace `descriptor`; return the attachment with its name.

        The kernel forwards for it, within its rates, when this returns. Raises ConflictError if the
        namespace is the host's own or a sandbox, and other OverlayErrors.
        """

    def removal_rows(self, attachment: Attachment) -> list[Row]:
        """Return the rows that let a start finish the removal; committed with the withdrawal."""

    async def disconnect(self, attachment: Attachment, endpoint: Endpoint | None) -> None:
        """Remove the interface, and what the kernel holds for it; `endpoint` is None if unknown."""

    def faults(self, vni: Vni) -> list[str]:
        """Return why interfaces of a network cannot be made or kept."""
